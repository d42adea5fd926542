"""The lines of a batch's results, cut and ordered in any way, too large, too many, or of another origin."""

from __future__ import annotations

import asyncio
import json
import math
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_runs import KEY, Clock, client_of, plans_of, run_batch
from lm_deluge import LLMClient
from lm_deluge.config import Secret
from lm_deluge.dispatch.batch.provider.items import ItemFile
from lm_deluge.dispatch.batch.provider.runner import ProviderBatch
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import BatchEndedError, DispatchError, RedirectRefusedError, ResponseLimitError
from lm_deluge.simulator import Simulator
from lm_deluge.transport.base import ConnectionSlot
from lm_deluge.transport.connection_slots import ConnectionSlots
from lm_deluge.wire.http import HttpHead, HttpRequest

Reads = Sequence[bytes] | Callable[[], Iterator[bytes]]


class Body:
    """An answer that arrives in the given pieces."""

    def __init__(self, pieces: Iterator[bytes], headers: dict[str, str]) -> None:
        self.head = HttpHead(200, headers)
        self.bytes_received = 0
        self._pieces = pieces

    def keep(self, place: ConnectionSlot) -> None:
        pass

    async def read(self) -> bytes:
        return next(self._pieces, b"")

    async def release(self, wait_s: float) -> int:
        return 0

    def abort(self) -> None:
        pass


class OpenAIHost:
    """A transport in memory: a host of OpenAI's batch API. `results` returns the results for the names in a batch."""

    def __init__(self, results: Callable[[list[str]], Reads], phase: str = "completed") -> None:
        self.hosts: set[str] = set()
        self._results = results
        self._names: list[str] = []
        self._phase = phase

    async def connection_slot(self) -> ConnectionSlot:
        return await ConnectionSlots(math.inf).take()

    async def open(self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None) -> Body:
        self.hosts.add(request.url.split("/")[2])
        path = request.url.partition("/v1")[2]
        if path == "/files":
            assert request.pieces is not None
            lines = b"".join(request.pieces).split(b"\r\n\r\n")[2].split(b"\r\n--")[0].splitlines()
            self._names = [json.loads(line)["custom_id"] for line in lines]
            return self._document({"id": "file-1"})
        if path.endswith("/content"):
            found = self._results(self._names)
            return Body(found() if callable(found) else iter(found), {})
        return self._document({"id": "batch_1", "status": self._phase, "output_file_id": "file-2"})

    def _document(self, content: Any) -> Body:
        return Body(iter([json.dumps(content).encode()]), {"content-type": "application/json"})

    async def close(self) -> None:
        pass


def line_of(name: str, text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    body = {"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [choice], "usage": usage}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return json.dumps({"custom_id": name, "response": response, "error": None}).encode()


async def run_at(host: OpenAIHost, count: int, path: Path, **options: Any) -> dict[str, Any]:
    client = LLMClient("gpt-4o", base_url="http://host.test/v1", api_key=KEY, **options)
    client.dispatcher.transport = host
    return await run_batch(client, [f"p{number}" for number in range(count)], path, max_requests=1_000)


NOISE = [
    b"",
    b"{}",
    b"not json",
    b'{"custom_id": "someone-else-7"}',
    b'{"custom_id": "ffff-0", "response": null}',
    b"[1]",
]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_and_any_cut_of_the_lines_gives_each_call_its_answer(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    lost = data.draw(st.sets(st.integers(0, count - 1)))
    twice = data.draw(st.sets(st.integers(0, count - 1)))

    def results(names: list[str]) -> Reads:
        lines = [line_of(name, f"answer {number}") for number, name in enumerate(names) if number not in lost]
        lines += data.draw(st.lists(st.sampled_from(NOISE), max_size=4))
        lines = data.draw(st.permutations(lines))
        lines += [line_of(names[number], "too late") for number in sorted(twice - lost)]  # the first one counts
        body = data.draw(st.sampled_from([b"\n", b"\r\n"])).join(lines) + data.draw(st.sampled_from([b"", b"\n"]))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
        pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        return [piece for piece in pieces if piece]

    with TemporaryDirectory() as folder:
        found = asyncio.run(run_at(OpenAIHost(results), count, Path(folder) / "j"))
    assert set(found) == {f"row {number}" for number in range(count)}
    for number in range(count):
        answer = found[f"row {number}"]
        if number in lost:
            assert isinstance(answer.error, BatchEndedError)
        else:
            assert (answer.error, answer.completion) == (None, f"answer {number}")


async def test_a_large_download_is_not_held(tmp_path: Path) -> None:
    """Forty megabytes of results: only one read, and the answers that the caller keeps, are in memory."""

    def results(names: list[str]) -> Reads:
        def body() -> Iterator[bytes]:
            for _ in range(640):
                yield line_of("ffff-0", "x" * 65_000) + b"\n"
            yield line_of(names[0], "here")

        return body

    tracemalloc.start()
    try:
        found = await run_at(OpenAIHost(results), 1, tmp_path / "j")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["row 0"].completion == "here"
    assert peak < 8 * 2**20


async def test_a_line_beyond_the_limit_ends_the_run_and_not_the_batch(tmp_path: Path) -> None:
    host = OpenAIHost(lambda names: [line_of(names[0], "a") + b"\n", line_of(names[1], "x" * 5_000)])
    with pytest.raises(ResponseLimitError, match="Raise max_event_bytes"):
        await run_at(host, 2, tmp_path / "j", max_event_bytes=2_000)
    found = await run_at(host, 2, tmp_path / "j", max_event_bytes=20_000)
    assert (found["row 0"].completion, found["row 1"].completion) == ("a", "x" * 5_000)


async def test_a_poll_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    class Endless(OpenAIHost):
        def _document(self, content: Any) -> Body:
            if content.get("status"):
                return Body(iter(lambda: b" " * 2**20, None), {})
            return super()._document(content)

    with pytest.raises(ResponseLimitError, match="larger than"):
        await run_at(Endless(lambda _: []), 1, tmp_path / "j")


async def test_nothing_goes_to_another_origin(tmp_path: Path) -> None:
    """Gemini names the URL of the upload: another origin gets neither key nor prompt."""

    class Host(OpenAIHost):
        async def open(self, request: HttpRequest, **options: Any) -> Body:
            self.hosts.add(request.url.split("/")[2])
            return Body(iter([b"{}"]), {"x-goog-upload-url": "https://evil.test/upload"})

    host = Host(lambda _: [])
    client = LLMClient("gemini-2.5-flash", base_url="https://host.test", api_key=KEY)
    client.dispatcher.transport = host
    with pytest.raises(RedirectRefusedError, match="to another origin"):
        await run_batch(client, ["a"], tmp_path / "j")
    assert host.hosts == {"host.test"}
    async with await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal:
        assert journal.state.ambiguous == ()


# The file of items


def test_items_are_framed_anew_each_time() -> None:
    with closing(ItemFile(b",\n")) as items:
        for item in (b"1", b"22", b"333"):
            items.add(item)
        framed = items.framed(b"[", b"]")
        assert (items.count, items.size, len(framed)) == (3, 10, 12)
        assert b"".join(framed) == b"".join(framed) == b"[1,\n22,\n333]"
        items.add(b"4")  # after the others, at whatever position the file was read last
        assert b"".join(items.framed(b"", b"")) == b"1,\n22,\n333,\n4"


def test_items_are_read_piece_by_piece() -> None:
    with closing(ItemFile(b"\n")) as items:
        for _ in range(40):
            items.add(b"x" * 50_000)
        pieces = list(items.framed(b"<", b">"))
        assert max(map(len, pieces)) <= 2**18
        assert b"".join(pieces) == b"<" + b"\n".join([b"x" * 50_000] * 40) + b">"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_full_disk_is_an_error_of_ours() -> None:
    with closing(ItemFile(b"\n")) as items:
        items._file.close()
        items._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123 - closed with the items
        with pytest.raises(DispatchError, match="cannot write the requests of a batch"):
            items.add(b"x")


async def test_a_body_in_pieces_is_sent_again_where_a_connection_was_stale(tmp_path: Path) -> None:
    """The server closes an idle connection when the upload starts: the upload is sent again from its start."""
    faults = [None, "keepalive_race", None, None]
    prompts = ["y" * 300_000, "z"]
    async with Simulator(lambda request: request.conversation[-1].completion[:1], faults=faults) as sim:
        async with (
            client_of(sim, "gpt-4o") as client,
            await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal,
        ):
            batch = ProviderBatch(journal, max_requests=1, sleep=Clock().sleep)
            found = {row: answer async for row, answer in batch.run(plans_of(client, prompts))}
        uploads = [request for request in sim.requests if request.path == "/v1/files"]
        assert {request.headers.get("transfer-encoding") for request in uploads} == {None}  # lengths are known
        assert sim.stats.faults["keepalive_race"] == 1
    assert [found[f"row {number}"].completion for number in range(2)] == ["y", "z"]
