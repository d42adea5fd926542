"""A journal as a batch uses it: records are durable before a call returns, in groups, and on a failing disk."""

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from failing_disk import FailingDisk, full
from lm_deluge.dispatch.journal.file import DiskFile
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import JournalError, RateLimitError
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

BATCH = "f" * 64


def answer(call: str, **fields: Any) -> APIResponse:
    usage = Usage(input_tokens=3, output_tokens=2, raw={"prompt_tokens": 3})
    return APIResponse(content=Message.assistant(f"answer {call}"), finish_reason="stop", usage=usage, **fields)


def failure(words: str = "slow down") -> APIResponse:
    return APIResponse(error=RateLimitError(words, status_code=429, body=f"{words}: THE PROMPT"))


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[Journal]:
    async with await Journal.open(path, fingerprint=BATCH, **options) as journal:
        yield journal


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line[18:]) for line in path.read_bytes().splitlines()]


async def test_the_story_of_a_call_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with opened(path) as journal:
        await journal.before_attempt("1", 1)
        await journal.fail("1", 1, failure(), is_final=False)
        await journal.before_attempt("1", 2)
        await journal.finish("1", 2, answer("1"))
        await journal.before_attempt("2", 1)
        await journal.fail("2", 1, failure("no"), is_final=True)
        await journal.before_attempt("3", 1)
        first = journal.response("1"), journal.response("2")
        assert journal.response("3") is None
    async with opened(path) as journal:
        assert [journal.state.status(call) for call in "1234"] == ["done", "failed", "in_flight", None]
        assert journal.state.ambiguous == (("3", 1),)
        assert journal.response("1") == answer("1") == first[0]
        for response in (first[1], journal.response("2")):
            assert str(response.error) == str(failure("no").error)
            assert type(response.error) is RateLimitError
    assert [line["type"] for line in lines(path)] == [
        *("journal", "intent", "failed", "intent", "done", "intent", "failed", "intent")
    ]


async def test_what_a_provider_quotes_of_a_prompt_is_not_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.fail("1", 1, failure(), is_final=True)
        assert journal.response("1").error.body == ""
    assert b"THE PROMPT" not in (tmp_path / "j").read_bytes()


class Watched(DiskFile):
    """A file that knows which bytes were written before the last `sync`."""

    safe = 0
    syncs = 0
    written = 0

    def write(self, data: Any) -> int:
        Watched.written += len(data)
        return super().write(data)

    def sync(self) -> None:
        super().sync()
        Watched.safe = os.fstat(self.fileno()).st_size
        Watched.syncs += 1


async def test_nobody_is_told_before_it_is_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "j"

    async def safe_lines() -> int:
        return path.read_bytes()[: Watched.safe].count(b"\n")

    async with opened(path, opener=Watched) as journal:
        for number in range(5):
            await journal.before_attempt(str(number), 1)
            assert await safe_lines() == 2 + 2 * number
            await journal.finish(str(number), 1, answer("x"))
            assert await safe_lines() == 3 + 2 * number


async def test_all_who_wait_share_one_sync(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", opener=Watched) as journal:
        before = Watched.syncs
        await asyncio.gather(*(journal.before_attempt(str(number), 1) for number in range(200)))
        assert Watched.syncs == before + 1
        await asyncio.gather(*(journal.finish(str(number), 1, answer("x")) for number in range(200)))
        assert Watched.syncs == before + 2
        assert len(journal.state.done) == 200


class Gated(DiskFile):
    """A file that blocks in its third write, that of the second record, until the test releases it."""

    reached = threading.Event()
    may_go = threading.Event()
    writes = 0

    def write(self, data: Any) -> int:
        Gated.writes += 1
        if Gated.writes == 3:
            Gated.reached.set()
            assert Gated.may_go.wait(5)
        return super().write(data)


async def test_a_caller_who_is_cancelled_has_sent_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with opened(path, opener=Gated) as journal:
        early = asyncio.create_task(journal.before_attempt("early", 1))
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
        await journal.before_attempt("sent", 1)
        late = asyncio.create_task(journal.before_attempt("late", 1))
        assert await asyncio.to_thread(Gated.reached.wait, 5)  # it is on its way to the disk
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        Gated.may_go.set()
    async with opened(path) as journal:
        assert journal.state.status("early") is None
        assert journal.state.status("late") == "waiting"
        assert journal.state.ambiguous == (("sent", 1),)


async def test_a_caller_who_is_cancelled_over_an_answer_loses_none(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        task = asyncio.create_task(journal.finish("1", 1, answer("1")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with opened(tmp_path / "j") as journal:
        assert journal.response("1") == answer("1")


async def test_two_journals_of_one_file_and_after_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        with pytest.raises(JournalError, match="works on the journal"):
            await Journal.open(tmp_path / "j", fingerprint=BATCH)
        await journal.finish("0", 1, answer("0"))
    await journal.close()
    with pytest.raises(JournalError, match="is closed"):
        await journal.before_attempt("1", 1)
    with pytest.raises(JournalError, match="is closed"):
        journal.response("0")
    with pytest.raises(JournalError, match="another batch"):
        await Journal.open(tmp_path / "j", fingerprint="0" * 64)


async def test_a_full_disk_stops_intents_first_and_keeps_answers(tmp_path: Path) -> None:
    path = tmp_path / "j"
    disk = FailingDisk(errno.ENOSPC)
    async with opened(path, opener=disk.open) as journal:
        for call in "123":
            await journal.before_attempt(call, 1)
        await journal.finish("1", 1, answer("1"))
        disk.room = 0
        with pytest.raises(JournalError) as caught:
            await journal.finish("2", 1, answer("2"))
        assert str(caught.value) == (
            f"cannot write the journal {path}: No space left on device. "
            "Its answers are safe (1 calls are done). Free some disk space, then resume."
        )
        assert journal.unsaved == {"2": answer("2")}
        assert (journal.response("1"), journal.response("2")) == (answer("1"), answer("2"))
        written = disk.writes
        with pytest.raises(JournalError, match="No space left"):
            await journal.before_attempt("4", 1)
        assert disk.writes == written
        disk.mend()
        await journal.finish("3", 1, answer("3"))  # takes along what is unsaved
        assert journal.unsaved == {}
        with pytest.raises(JournalError, match="No space left"):
            await journal.before_attempt("4", 1)
    async with opened(path) as journal:
        assert sorted(journal.state.done) == ["1", "2", "3"]
        assert journal.response("2") == answer("2")
        await journal.before_attempt("4", 1)


async def test_intents_give_way_to_answers_where_room_is_short(tmp_path: Path) -> None:
    disk = FailingDisk(errno.ENOSPC)
    async with opened(tmp_path / "j", opener=disk.open, gather_s=0.01) as journal:
        await journal.before_attempt("1", 1)
        ending = asyncio.gather(
            journal.before_attempt("2", 1),
            journal.finish("1", 1, answer("1")),
            journal.before_attempt("3", 1),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        first = disk.writes + 1
        disk.on_write = lambda number: number == first
        results = await ending
        assert [type(result) for result in results] == [JournalError, type(None), JournalError]
        assert journal.response("1") == answer("1")
    async with opened(tmp_path / "j") as journal:
        assert journal.state.status("1") == "done"
        assert journal.state.ambiguous == ()


async def test_intents_that_came_while_a_write_failed_are_not_written(tmp_path: Path) -> None:
    failing, may_fail = threading.Event(), threading.Event()

    def on_write(number: int) -> bool:
        if number == 3:
            failing.set()
            assert may_fail.wait(5)
        return number == 3

    disk = FailingDisk(errno.ENOSPC, on_write=on_write)
    async with opened(tmp_path / "j", opener=disk.open, gather_s=0) as journal:
        await journal.before_attempt("1", 1)
        first = asyncio.create_task(journal.before_attempt("2", 1))
        assert await asyncio.to_thread(failing.wait, 5)
        late = [
            asyncio.create_task(journal.before_attempt("3", 1)),
            asyncio.create_task(journal.finish("1", 1, answer("1"))),
        ]
        await asyncio.sleep(0)
        may_fail.set()
        results = await asyncio.gather(first, *late, return_exceptions=True)
        assert [type(result) for result in results] == [JournalError, JournalError, type(None)]
    assert [line["type"] for line in lines(tmp_path / "j")] == ["journal", "intent", "done"]


async def test_a_withdrawn_intent_that_cannot_be_told_is_no_lost_answer(tmp_path: Path) -> None:
    disk = FailingDisk(errno.ENOSPC)
    async with opened(tmp_path / "j", opener=disk.open, gather_s=0) as journal:
        task = asyncio.create_task(journal.before_attempt("1", 1))
        while journal.state.attempts("1") == 0:
            await asyncio.sleep(0)
        task.cancel()  # after the record was written, before its task runs
        disk.room = 0
        await asyncio.gather(task, return_exceptions=True)
    async with opened(tmp_path / "j") as journal:
        assert journal.state.attempts("1") == 1


@pytest.mark.parametrize("fails", ["sync", "truncate"])
async def test_a_disk_that_is_not_to_be_trusted_gets_nothing_more(fails: str, tmp_path: Path) -> None:
    disk = FailingDisk(errno.EIO)
    journal = await Journal.open(tmp_path / "j", fingerprint=BATCH, opener=disk.open)
    await journal.before_attempt("1", 1)
    disk.room, disk.fails = 5, {fails}
    with pytest.raises(JournalError, match="Input/output error"):
        await journal.finish("1", 1, answer("1"))
    disk.mend()
    with pytest.raises(JournalError, match=r"1 outcomes could not be written to the journal "):
        await journal.close()
    assert journal.unsaved == {"1": answer("1")}
    assert journal.response("1") == answer("1")
    async with opened(tmp_path / "j") as again:
        assert again.state.ambiguous == (("1", 1),)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
async def test_a_device_that_is_really_full(tmp_path: Path) -> None:
    with full() as opener:
        journal = await Journal.open(tmp_path / "j", fingerprint=BATCH, opener=opener)
        await journal.before_attempt("1", 1)
        opener.is_full = True
        results = await asyncio.gather(
            journal.before_attempt("2", 1), journal.finish("1", 1, answer("1")), return_exceptions=True
        )
        assert [type(each) for each in results] == [JournalError, JournalError]
        assert journal.response("1") == answer("1")
        opener.is_full = False
        await journal.close()
    async with opened(tmp_path / "j") as journal:
        assert journal.response("1") == answer("1")


async def run_batch(path: Path, count: int, opener: Any = DiskFile) -> dict[str, APIResponse]:
    """Run a batch with eight tasks; return the answers that its callers saw."""
    seen: dict[str, APIResponse] = {}
    async with await Journal.open(path, fingerprint=BATCH, opener=opener, gather_s=0) as journal:
        calls = iter([str(number) for number in range(count)])

        async def spec() -> None:
            for call in calls:
                known = journal.response(call)
                if known is None:
                    attempt = journal.state.attempts(call) + 1
                    await journal.before_attempt(call, attempt)
                    known = answer(call)
                    await journal.finish(call, attempt, known)
                seen[call] = known

        await asyncio.gather(*(spec() for _ in range(8)), return_exceptions=True)
    return seen


@pytest.mark.timeout(3_600 if os.environ.get("DELUGE_SOAK") else 120)
async def test_no_room_at_any_write_of_a_batch_and_it_ends_the_same(tmp_path: Path) -> None:
    """Each write fails once in its middle. The batch is run again, and ends as if no write had failed."""
    count = 1_000 if os.environ.get("DELUGE_SOAK") else 60
    well = FailingDisk(errno.ENOSPC)
    whole = await run_batch(tmp_path / "undisturbed", count, well.open)
    assert len(whole) == count
    for failing in range(1, well.writes + 1):
        path = tmp_path / f"{failing}"
        disk = FailingDisk(errno.ENOSPC, on_write=lambda number, failing=failing: number == failing)
        try:
            seen = await run_batch(path, count, disk.open)
        except JournalError:
            assert failing == 1  # the header
        else:
            assert (len(seen) < count) == (disk.writes >= failing)
        assert await run_batch(path, count) == whole


async def test_what_nobody_foresaw_reaches_all_who_wait(tmp_path: Path) -> None:
    class Odd(DiskFile):
        def sync(self) -> None:
            if os.fstat(self.fileno()).st_size > 200:
                raise ZeroDivisionError
            super().sync()

    journal = await Journal.open(tmp_path / "j", fingerprint=BATCH, opener=Odd)
    flushing = asyncio.gather(
        journal.before_attempt("1", 1), journal.finish("2", 1, answer("2")), return_exceptions=True
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    flusher = journal._flusher
    assert [type(each) for each in await flushing] == [ZeroDivisionError, ZeroDivisionError]
    with pytest.raises(ZeroDivisionError):
        await flusher
    await journal.close()


async def test_an_answer_that_is_no_json_is_refused_and_stays_with_its_owner(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.before_attempt("1", 1)
        with pytest.raises(JournalError, match="does not fit into JSON"):
            await journal.finish("1", 1, APIResponse(content=Message.assistant("\ud800")))
        await journal.finish("1", 1, answer("1"))


async def test_a_loop_that_ends_leaves_nobody_waiting(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "j", fingerprint=BATCH, gather_s=5)
    task = asyncio.create_task(journal.before_attempt("1", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    journal._flusher.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await journal.close()


async def test_batches_of_the_provider_are_told_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with opened(path) as journal:
        await journal.submit("k1", ["1", "2"], 1, at=12.5)
        assert sorted(journal.state.ambiguous) == [("1", 1), ("2", 1)]
        await journal.record_handle("k1", "acme", "batch_1")
        await journal.submit("k2", ["3"], 1, at=13.0)
        await journal.submit("k3", ["4"], 1, at=14.0)
        await journal.record_handle("k3", "acme", "")
        await journal.finish("1", 1, answer("1"))
    async with opened(path) as journal:
        first, second = journal.state.open_batches
        assert (first.name, first.ids, first.attempt, first.at) == ("k1", ("1", "2"), 1, 12.5)
        assert (first.provider, first.handle) == ("acme", "batch_1")
        assert journal.state.waiting_in(first) == ["2"]
        assert (second.name, second.handle) == ("k2", None)
        assert journal.state.ambiguous == (("3", 1),)
        assert [journal.state.status(call) for call in "1234"] == ["done", "in_flight", "in_flight", "waiting"]
    assert [line["type"] for line in lines(path)[1:]] == ["submit", "handle", "submit", "submit", "handle", "done"]


async def test_a_submission_that_is_withdrawn_was_never_made(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with opened(path, gather_s=0.05) as journal:
        submitting = asyncio.create_task(journal.submit("k1", ["1"], 1, at=0.0))
        await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)
        await journal.submit("k2", ["1"], 1, at=0.0)
    async with opened(path) as journal:
        assert [batch.name for batch in journal.state.open_batches] == ["k2"]


async def test_a_full_disk_takes_no_submission_and_a_handle_only_later(tmp_path: Path) -> None:
    disk = FailingDisk(errno.ENOSPC)
    async with opened(tmp_path / "j", opener=disk.open) as journal:
        await journal.submit("k1", ["1"], 1, at=0.0)
        disk.room = 0
        with pytest.raises(JournalError):
            await journal.record_handle("k1", "acme", "batch_1")
        with pytest.raises(JournalError):
            await journal.submit("k2", ["2"], 1, at=0.0)
        disk.mend()
    async with opened(tmp_path / "j") as journal:
        assert [(batch.name, batch.handle) for batch in journal.state.open_batches] == [("k1", "batch_1")]


async def test_a_close_that_is_cancelled_releases_the_journal(tmp_path: Path) -> None:
    path, writing, may_go = tmp_path / "j", threading.Event(), threading.Event()

    def on_write(number: int) -> bool:
        if number == 2:
            writing.set()
            assert may_go.wait(5)
        return False

    disk = FailingDisk(errno.ENOSPC, on_write=on_write)
    journal = await Journal.open(path, fingerprint=BATCH, opener=disk.open, gather_s=0)
    recording = asyncio.create_task(journal.before_attempt("1", 1))
    assert await asyncio.to_thread(writing.wait, 5)
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.sleep(0)
    assert not closing.done()  # the record on its way to the disk is waited for
    may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await recording
    await journal.close()  # a second time does nothing
    async with opened(path) as again:
        assert again.state.status("1") == "in_flight"
