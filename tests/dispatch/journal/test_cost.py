"""The cost of a batch: of its answers, its failed attempts and its ambiguous attempts."""

from lm_deluge.dispatch.journal.cost import BatchCost, Sum, batch_cost
from lm_deluge.dispatch.journal.records import (
    Done,
    Failed,
    Header,
    Intent,
    JournalEntry,
    JournalState,
    Record,
    encode_record,
    scan,
)
from lm_deluge.errors import RateLimitError, TruncatedError
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.usage import Usage


def took(read: int, written: int, cost: float | None = None, **fields) -> dict:
    usage = Usage(input_tokens=read, output_tokens=written, estimated=fields.pop("estimated", False))
    return APIResponse(usage=usage, cost=cost, **fields).to_dict()


def cost_of(*records: Record) -> BatchCost:
    lines = [encode_record(record) for record in (Header(1, "f"), *records)]
    state = JournalState()
    for offset, found in scan(lines):
        assert isinstance(found, JournalEntry)
        state.add(found, offset)
    return batch_cost(lines, state)


def test_nothing() -> None:
    assert cost_of() == BatchCost(Sum(), Sum(), Sum(), [], {})


def test_a_batch_with_everything_in_it() -> None:
    found = cost_of(
        Intent("a", 1),
        Failed("a", 1, response=took(5, 1, 0.5, error=TruncatedError("cut"), estimated=True)),
        Intent("a", 2),
        Done("a", 2, took(10, 2, 1.0)),
        Intent("b", 1),  # killed
        Intent("b", 2),
        Done("b", 2, took(20, 3, 2.0)),
        Intent("c", 1),  # killed, and killed again
        Intent("c", 2),
        Intent("d", 1),
        Failed("d", 1, is_final=True, response=APIResponse(error=RateLimitError("no", status_code=429)).to_dict()),
        Intent("e", 1),
        Failed("e", 1),  # withdrawn: never sent
        Failed("f", 0, is_final=True, response=APIResponse(error=RateLimitError("no")).to_dict()),
        Intent("g", 1),
        Done("g", 1, took(9, 9, 0.0, local_cache_hit=True)),
    )
    assert found.answers == Sum(3, 30, 5, 3.0, is_estimated=False)
    assert found.failed_attempts == Sum(2, 5, 1, 0.5, is_estimated=True)
    assert found.ambiguous == Sum(3, 20, 3, 2.0, is_estimated=True)
    assert found.ambiguous_ids == ["b", "c", "c"]
    assert found.failures == {"RateLimitError": 2}
    assert found.answers + found.failed_attempts == Sum(5, 35, 6, 3.5, is_estimated=True)


def test_a_row_that_was_answered_in_the_end_is_no_failure() -> None:
    error = APIResponse(error=RateLimitError("no", status_code=429)).to_dict()
    found = cost_of(
        Intent("a", 1), Failed("a", 1, is_final=True, response=error), Intent("a", 2), Done("a", 2, took(1, 1))
    )
    assert found.failures == {}
    assert (found.answers.requests, found.failed_attempts.requests, found.answers.cost) == (1, 1, None)


def test_what_an_answer_has_in_its_sum_is_not_counted_twice() -> None:
    """A response includes the usage of all attempts of its own run; attempts of a killed run are counted separately."""
    broken = took(5, 1, 0.5, error=TruncatedError("cut"), estimated=True)
    for attempts, own in ((2, Sum(1, 0, 0, None)), (1, Sum(1, 5, 1, 0.5, is_estimated=True))):
        answer = took(15, 3, 1.5, stats=StreamStats(attempts=attempts))
        found = cost_of(Intent("a", 1), Failed("a", 1, response=broken), Intent("a", 2), Done("a", 2, answer))
        assert found.answers == Sum(1, 15, 3, 1.5)
        assert found.failed_attempts == own
    last = took(12, 2, 1.0, error=TruncatedError("cut"), stats=StreamStats(attempts=2))
    found = cost_of(
        Intent("a", 1),
        Failed("a", 1, response=broken),
        Intent("a", 2),
        Failed("a", 2, is_final=True, response=broken),
        Failed("a", 2, is_final=True, response=last),  # with the usage of both attempts
    )
    assert found.failed_attempts == Sum(2, 12, 2, 1.0)
