"""Batches that wait for room in the provider's queue, results whose file is named late, and functions that fail."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_runs import KEY, Clock, Killed, plans_of, run_batch
from client.hooks.exceptions import EVERY_EXCEPTION
from lm_deluge import LLMClient
from lm_deluge.config import Secret
from lm_deluge.dispatch.batch.provider.part import RESULTS_WAIT_S
from lm_deluge.dispatch.batch.provider.runner import ProviderBatch
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import BatchEndedError, DispatchError, RateLimitError
from lm_deluge.transport.base import ConnectionSlot
from lm_deluge.transport.connection_slots import ConnectionSlots
from lm_deluge.wire.http import HttpHead, HttpRequest

FULL = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for gpt-4o.", "line": None}


class Document:
    """An answer in one piece."""

    def __init__(self, data: bytes) -> None:
        self.head = HttpHead(200, {"content-type": "application/json"})
        self.bytes_received = 0
        self._pieces: Iterator[bytes] = iter([data])

    def keep(self, place: ConnectionSlot) -> None:
        pass

    async def read(self) -> bytes:
        return next(self._pieces, b"")

    async def release(self, wait_s: float) -> int:
        return 0

    def abort(self) -> None:
        pass


class QueueHost:
    """A host of OpenAI's batch API in memory, whose queue has room for some batches.

    Args:
        room: Number of batches in the queue.
        polls: Polls until an accepted batch ends.
        late: Polls after the end until the file of the results is named.
        counts: Whether the numbers of requests are reported.
    """

    def __init__(self, room: int = 1, polls: int = 1, late: float = 0, *, counts: bool = True) -> None:
        self.log: list[str] = []
        self.room, self._polls, self._late, self._counts = room, polls, late, counts
        self._names: list[str] = []
        self._batches: dict[str, dict[str, Any]] = {}

    async def connection_slot(self) -> ConnectionSlot:
        return await ConnectionSlots(math.inf).take()

    async def open(self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None) -> Document:
        path = request.url.partition("/v1")[2]
        if path == "/files":
            assert request.pieces is not None
            lines = b"".join(request.pieces).split(b"\r\n\r\n")[2].split(b"\r\n--")[0].splitlines()
            self._names = [json.loads(line)["custom_id"] for line in lines]
            return self._document({"id": "file-1"})
        if path == "/batches":
            name = f"batch_{len(self._batches)}"
            is_full = sum(each["left"] > 0 for each in self._batches.values()) >= self.room
            self._batches[name] = {"left": 0 if is_full else self._polls, "names": self._names, "is_full": is_full}
            self.log.append(f"{'refuse' if is_full else 'accept'} {len(self._names)}")
            return self._document({"id": name, "status": "validating"})
        if path.endswith("/content"):
            return Document(b"\n".join(map(answer_line, self._batches[path.split("/")[2]]["names"])))
        return self._document(self._state(path.rpartition("/")[2]))

    def _state(self, name: str) -> dict[str, Any]:
        batch = self._batches[name]
        if batch["is_full"]:
            return {"id": name, "status": "failed", "errors": {"data": [FULL]}}
        batch["left"] -= 1
        count = len(batch["names"])
        shown: dict[str, Any] = {"id": name, "status": "in_progress"}
        if batch["left"] <= 0:
            self.log.append(f"end {count}")
            file = name if batch["left"] <= -self._late else None
            shown = {"id": name, "status": "completed", "output_file_id": file, "error_file_id": None}
        if self._counts:
            shown["request_counts"] = {"total": count, "completed": count, "failed": 0}
        return shown

    def _document(self, content: Any) -> Document:
        return Document(json.dumps(content).encode())

    async def close(self) -> None:
        pass


def answer_line(name: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": name[-1]}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    body = {"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [choice], "usage": usage}
    return json.dumps({"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}).encode()


def client_at(host: Any, **options: Any) -> LLMClient:
    client = LLMClient("gpt-4o", base_url="http://host.test/v1", api_key=KEY, **options)
    client.dispatcher.transport = host
    return client


async def test_a_batch_that_finds_the_queue_full_is_submitted_again_when_another_ends(tmp_path: Path) -> None:
    host = QueueHost(polls=2)
    found = await run_batch(client_at(host), ["a", "b", "c", "d"], tmp_path / "j", max_requests=2)
    assert {answer.error for answer in found.values()} == {None}
    assert host.log == ["accept 2", "refuse 2", "end 2", "accept 2", "end 2"]
    async with await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal:
        assert len(journal.state.done) == 4
        assert journal.state.ambiguous == ()


async def test_one_by_one_all_batches_get_their_turn(tmp_path: Path) -> None:
    host = QueueHost()
    found = await run_batch(client_at(host), list("abcde"), tmp_path / "j", max_requests=1)
    assert sorted(found) == [f"row {number}" for number in range(5)]
    assert {answer.error for answer in found.values()} == {None}
    assert host.log.count("accept 1") == 5


async def test_without_other_batches_a_full_queue_is_waited_for_and_then_the_error_of_each(tmp_path: Path) -> None:
    host, clock = QueueHost(room=0), Clock()
    found = await run_batch(client_at(host), ["a", "b"], tmp_path / "j", clock=clock, max_attempts=3)
    assert {type(answer.error) for answer in found.values()} == {RateLimitError}
    assert host.log == ["refuse 2"] * 4
    assert clock.waits.count(60) == 3


@pytest.mark.parametrize("counts", [True, False])
async def test_results_whose_file_is_named_late_are_polled_for(counts: bool, tmp_path: Path) -> None:
    host = QueueHost(late=4, counts=counts)
    found = await run_batch(client_at(host), ["a", "b"], tmp_path / "j")
    assert [found[row].completion for row in ("row 0", "row 1")] == ["0", "1"]
    assert host.log.count("end 2") == 5


async def test_results_whose_file_is_never_named_are_given_up(tmp_path: Path) -> None:
    host, clock = QueueHost(late=math.inf), Clock()
    found = await run_batch(client_at(host), ["a"], tmp_path / "j", clock=clock)
    assert isinstance(found["row 0"].error, BatchEndedError)
    assert RESULTS_WAIT_S <= sum(clock.waits) < 2 * RESULTS_WAIT_S


@pytest.mark.parametrize("name", EVERY_EXCEPTION)
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_fails_does_not_end_the_run(name: str, tmp_path: Path, *, is_async: bool) -> None:
    seen = []
    failure = EVERY_EXCEPTION[name]
    if is_async and isinstance(failure, StopIteration | GeneratorExit):
        pytest.skip("a coroutine cannot raise it")

    def fail(name: str, state: object) -> None:
        seen.append(name)
        raise failure

    async def fail_later(name: str, state: object) -> None:
        fail(name, state)

    with pytest.warns(RuntimeWarning, match=f"on_state raised {type(failure).__name__}"):
        found = await run_batch(
            client_at(QueueHost(polls=3)), ["a"], tmp_path / "j", on_state=fail_later if is_async else fail
        )
    assert found["row 0"].completion == "0"
    assert len(seen) == 1


async def test_a_function_may_be_async(tmp_path: Path) -> None:
    seen = []

    async def note(name: str, state: Any) -> None:
        seen.append(state.phase)

    await run_batch(client_at(QueueHost(polls=2)), ["a"], tmp_path / "j", on_state=note)
    assert seen == ["in_progress", "ended"]


async def test_a_result_that_cannot_be_read_is_the_error_of_its_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_deluge.adapters.openai_chat.adapter import OpenAIChat

    parse = OpenAIChat.parse_response

    def fail_once(self: Any, call: Any, body: bytes) -> Any:
        if b'"content":"0"' in body.replace(b" ", b""):
            raise ZeroDivisionError
        return parse(self, call, body)

    monkeypatch.setattr(OpenAIChat, "parse_response", fail_once)
    found = await run_batch(client_at(QueueHost()), ["a", "b"], tmp_path / "j")
    assert isinstance(found["row 0"].error, DispatchError)
    assert "an unexpected ZeroDivisionError ended the call" in str(found["row 0"].error)
    assert found["row 1"].completion == "1"


async def test_a_refused_batch_of_an_earlier_run_waits_for_room_too(tmp_path: Path) -> None:
    host, prompts = QueueHost(room=0), ["a", "b"]

    async def die(seconds: float) -> None:
        raise Killed

    async with await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal:
        with pytest.raises(Killed):  # before the first poll
            await anext(ProviderBatch(journal, sleep=die).run(plans_of(client_at(host), prompts)))
    assert host.log == ["refuse 2"]
    clock = Clock()
    host.room = 1
    found = await run_batch(client_at(host), prompts, tmp_path / "j", clock=clock)
    assert {row: answer.completion for row, answer in found.items()} == {"row 0": "0", "row 1": "1"}
    assert host.log == ["refuse 2", "accept 2", "end 2"]
    assert clock.waits.count(60) == 1
    async with await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal:
        assert journal.state.ambiguous == ()
