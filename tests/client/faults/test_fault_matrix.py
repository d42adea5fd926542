"""Every fault, met by every kind of call with retries on: each request ends exactly once, as it should."""

import asyncio
from typing import Any

import msgspec
import pytest

from client.faults.fault_runs import MOST_ATTEMPTS, PATIENT, PROMPTS, WAYS, Run, always, once, run, text_for
from lm_deluge import Timeouts
from lm_deluge import errors as e
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.simulator import FAULTS, Fault
from transport.test_faults import BROKEN, IN_ORDER, clocks_for

# What the simulator's faults end in where they never stop; what is not named here is a whole answer.
ENDS: dict[str, type[DelugeError]] = {
    **dict.fromkeys(("huge_line", "huge_event", "gzip_bomb"), e.ResponseLimitError),
    **dict.fromkeys(("truncated_gzip", "cut_chunk", "reset", "short_length"), e.StreamInterruptedError),
    **dict.fromkeys(("empty_reply", "reset_first"), e.StreamInterruptedError),
    **dict.fromkeys(("unknown_encoding", "html_200"), e.ContentTypeError),
    **dict.fromkeys(("not_json", "huge_header", "duplicate_content_length", "bad_status_line"), e.ProtocolError),
    **dict.fromkeys(("empty_body", "clean_truncation", "close_truncation"), e.TruncatedError),
    **dict.fromkeys(("no_answer", "silence", "endless_pings", "endless_empty_deltas"), e.TimeoutError),
    "bad_chunk_size": e.TimeoutError,  # aiohttp does not tell who reads (3.14, 2026-11): the idle clock does
    **dict.fromkeys(("redirect_other_origin", "redirect_loop"), e.RedirectRefusedError),
    **dict.fromkeys(("status_400", "x_should_retry_true"), e.BadRequestError),
    "status_401": e.AuthenticationError,
    **dict.fromkeys(("status_402", "quota"), e.QuotaExceededError),
    "status_403": e.PermissionDeniedError,
    "status_404": e.NotFoundError,
    "status_413": e.RequestTooLargeError,
    **dict.fromkeys([name for name in FAULTS if name.startswith("retry_after")], e.RateLimitError),
    **dict.fromkeys(("status_429", "json_error_200"), e.RateLimitError),
    **dict.fromkeys(("status_503", "status_529", "x_should_retry_false"), e.OverloadedError),
    "in_band_error_first": e.OverloadedError,
    **dict.fromkeys([f"status_{status}" for status in (408, 409, 500, 501, 502, 504, 505)], e.ServerError),
    **dict.fromkeys(("status", "in_band_error_mid", "error_html", "error_empty", "error_text"), e.ServerError),
    "context_length": e.ContextLengthError,
    "content_filter_first": e.ContentFilterError,
}
# Faults that come behind the first tokens: whoever was shown them is not shown the answer a second time.
BEHIND_TOKENS = (
    *("huge_line", "huge_event", "cut_chunk", "reset", "short_length", "not_json", "gzip_bomb"),
    *("clean_truncation", "close_truncation", "silence", "endless_pings", "endless_empty_deltas", "bad_chunk_size"),
    "in_band_error_mid",
)
# No class says it: the provider does, its status does, or the wait that it asks for is too long.
ATTEMPTS = {
    **dict.fromkeys(("x_should_retry_false", "status_501", "status_505", "retry_after_day"), 1),
    "x_should_retry_true": MOST_ATTEMPTS,
}
OTHER_TEXT = (
    *("invalid_utf8", "u2028", "escapes", "nul", "empty_answer", "content_filter_mid", "refusal_mid", "bad_tool_json"),
    *(name for name in FAULTS if name.startswith(("tool_", "interleaved"))),
)
SPELLED = {
    **{name: {"seconds": 0.05} for name in ("slow_first_byte", "slow_first_token", "buffered", "retry_after_seconds")},
    **{name: {"seconds": 0.01} for name in ("endless_pings", "endless_empty_deltas")},
    **{name: {"size": 200_000} for name in ("huge_line", "huge_event")},
    "gzip_bomb": {"size": 24 * 2**20},
    "drip": {"seconds": 0.0},
    "extra_headers": {"headers": {"x-ratelimit-remaining-requests": "3"}},
}
# Requests that are no attempts: where a redirect leads to.
_EXTRA = {"redirect_same_origin": 1, "redirect_loop": 3}
# Twenty calls share the process, which a busy machine stops for a moment: a shorter clock would end healthy calls.
SHORTEST_CLOCK_S = 2.0
CLOCKS: dict[str, dict[str, float]] = {
    "no_answer": {"first_token": SHORTEST_CLOCK_S},
    "silence": {"idle": SHORTEST_CLOCK_S},
    "bad_chunk_size": {"idle": SHORTEST_CLOCK_S},
    "endless_pings": {"progress": SHORTEST_CLOCK_S},
    "endless_empty_deltas": {"progress": SHORTEST_CLOCK_S},
}
LITERAL_BEHIND_TOKENS = tuple(name for name, (_, _, partial) in BROKEN.items() if partial is not None)


def _fault(name: str) -> Any:
    if name in FAULTS:
        return Fault(name, **SPELLED.get(name, {}))
    return BROKEN[name][0] if name in BROKEN else IN_ORDER[name]


def _clocks(name: str) -> Timeouts:
    if name not in BROKEN:
        return msgspec.structs.replace(PATIENT, **CLOCKS.get(name, {}))
    clocks = clocks_for(name)
    longer = {clock: max(getattr(clocks, clock), SHORTEST_CLOCK_S) for clock in ("first_token", "idle", "progress")}
    return msgspec.structs.replace(clocks, **longer)


def _options(name: str) -> dict[str, Any]:
    clocks = _clocks(name)
    is_asked = name.startswith(("br", "zstd", "zstandard")) and "unasked" not in name
    asked = {"accept-encoding": "br, zstd"} if is_asked else {}
    return {"timeouts": clocks, "max_event_bytes": 32_768, "extra_headers": asked}


def _end(name: str) -> type[DelugeError] | None:
    return BROKEN[name][1] if name in BROKEN else ENDS.get(name)


def _attempts(name: str, way: str) -> int:
    """How often a call is tried that meets the fault each time."""
    end = _end(name)
    if end is None or (way != "batch" and name in (*BEHIND_TOKENS, *LITERAL_BEHIND_TOKENS)):
        return 1
    if name in ("status 501", "status 505"):
        return 1
    usual = 1 if not end.retryable else MOST_ATTEMPTS if end.max_retries is None else 1 + end.max_retries
    return ATTEMPTS.get(name, usual)


NAMES = [*FAULTS, *IN_ORDER, *BROKEN]
assert len(NAMES) == len(set(NAMES))
# A model that wants to be left alone for a day is asked no more: test_batch.py has what becomes of the calls behind.
CASES = [(name, way) for name in NAMES for way in WAYS if (name, way) != ("retry_after_day", "single")]


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str, str], Run]:
    """Play all of it at once: most of the time goes by in waits."""

    async def play() -> dict[tuple[str, str, str], Run]:
        found: dict[tuple[str, str, str], Run] = {}
        places = asyncio.Semaphore(20)

        async def one(name: str, way: str) -> None:
            async with places:
                found[name, way, "once"] = await run(once(_fault(name)), way, **_options(name))
                found[name, way, "always"] = await run(always(_fault(name)), way, PROMPTS[:2], **_options(name))

        await asyncio.gather(*(one(name, way) for name, way in CASES))
        return found

    return asyncio.run(play())


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_fault_that_passes_is_got_over(runs: dict[tuple[str, str, str], Run], name: str, way: str) -> None:
    found = runs[name, way, "once"]
    assert found.raised is None
    assert len(found.responses) == len(found.prompts)
    assert [response.completion for response in found.responses] == found.texts
    failed = [response for response in found.responses if response.error is not None]
    end = _end(name)
    if end is None or _attempts(name, way) > 1:
        assert not failed, failed[0].error
    else:
        assert [type(response.error) for response in failed] == [end]
    requests = len(PROMPTS) + (end is not None and _attempts(name, way) > 1) + _EXTRA.get(name, 0)
    assert sum(found.asked.values()) == requests
    assert set(found.asked) == set(PROMPTS)
    for prompt, response in zip(found.prompts, found.responses, strict=True):
        if response.error is None:
            _check_whole(name, prompt, response)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_fault_that_stays_ends_each_call_in_its_class(
    runs: dict[tuple[str, str, str], Run], name: str, way: str
) -> None:
    found = runs[name, way, "always"]
    assert found.raised is None
    assert len(found.responses) == len(found.prompts)
    end = _end(name)
    assert {response.error and type(response.error) for response in found.responses} == {end}
    expected = dict.fromkeys(found.prompts, _attempts(name, way) + _EXTRA.get(name, 0))
    assert found.asked == expected
    for prompt, response in zip(found.prompts, found.responses, strict=True):
        if response.error is None:
            _check_whole(name, prompt, response)
            continue
        assert response.error.attempts == _attempts(name, way)
        assert response.error.provider == "openai"
        assert response.error.model == "gpt-4o"
        if response.completion:
            assert response.error.billed == "yes"
            assert response.usage.output_tokens > 0
            assert response.usage.estimated
            assert response.cost > 0


def _check_whole(name: str, prompt: str, response: APIResponse) -> None:
    text = text_for(prompt) if name in FAULTS else "Hello world"
    if name not in OTHER_TEXT:
        assert response.completion == text
        assert response.finish_reason == "stop"
    assert response.usage.input_tokens > 0
    assert response.cost > 0
    assert response.usage.estimated is (response.usage.raw is None)
