"""Requests are parsed strictly, within the limits, however their bytes are split."""

from __future__ import annotations

import asyncio
import json

import pytest

from lm_deluge.simulator import Limits, Simulator
from lm_deluge.testing import decode_body
from simulator.raw_client import TEXT, chat, exchange, http, parse_reply

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
async def sim() -> Simulator:
    async with Simulator(TEXT, limits=Limits(header_bytes=2_000, body_bytes=1_000, header_s=0.1, body_s=0.1)) as it:
        yield it


REFUSED = {
    "no HTTP": (b"hello\r\n\r\n", 400, "The request line cannot be read."),
    "HTTP/2": (b"POST / HTTP/2.0\r\n\r\n", 400, "The request line cannot be read."),
    "a header without colon": (POST + b"nonsense\r\n\r\n", 400, "A header cannot be read."),
    "a blank before the colon": (POST + b"content-length : 3\r\n\r\n", 400, "A header cannot be read."),
    "a folded header": (POST + b"x: a\r\n b\r\n\r\n", 400, "A header cannot be read."),
    "a target that is none": (b"GET http://[ HTTP/1.1\r\n\r\n", 400, "The target cannot be read."),
    "two lengths": (
        POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        400,
        "There are two different content-length headers.",
    ),
    "a negative length": (POST + b"content-length: -1\r\n\r\n", 400, "The content-length is not a number."),
    "length and chunks": (
        POST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        400,
        "The request has both content-length and transfer-encoding.",
    ),
    "another coding": (POST + b"transfer-encoding: gzip\r\n\r\n", 501, "This transfer-encoding is not supported."),
    "a chunk without size": (CHUNKED + b"zz\r\n", 400, "The size of a chunk is not a hexadecimal number."),
    "a chunk that is too long": (CHUNKED + b"1\r\nabc\r\n", 400, "A chunk is longer than its size."),
    "large headers": (POST + b"x: " + b"x" * 3_000 + b"\r\n\r\n", 431, "The headers are larger than 2000 bytes."),
    "a large body": (http(b"x" * 1_001), 413, "The body is larger than 1000 bytes."),
    "a large body in chunks": (CHUNKED + b"3e9\r\n", 413, "The body is larger than 1000 bytes."),
    "a length of 5,000 digits": (
        POST + b"content-length: " + b"9" * 1_900 + b"\r\n\r\n",
        413,
        "The body is larger than 1000 bytes.",
    ),
    "a chunk size of 1,900 digits": (
        CHUNKED + b"9" * 1_900 + b"\r\n",
        400,
        "The size of a chunk is not a hexadecimal number.",
    ),
    "a length in other digits": (
        POST + "content-length: ²".encode("latin-1") + b"\r\n\r\n",
        400,
        "The content-length is not a number.",
    ),
    "slow headers": (POST, 408, "The request did not arrive in time."),
    "a slow body": (POST + b"content-length: 5\r\n\r\nabc", 408, "The request did not arrive in time."),
}


@pytest.mark.parametrize(("data", "status", "message"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_read_is_refused(sim: Simulator, data: bytes, status: int, message: str) -> None:
    reply = await exchange(sim, data)
    assert (reply.status, reply.end, reply.header("connection")) == (status, "fin", "close")
    assert json.loads(reply.body)["error"]["message"] == message
    assert sim.requests == []


async def test_an_answer_survives_an_unread_request_body() -> None:
    async with Simulator(limits=Limits(body_bytes=1_000)) as sim:
        reply = await exchange(sim, http(b"x" * 3_000_000))
    assert (reply.status, reply.end, reply.is_whole) == (413, "fin", True)


DIGITS = "9" * 5_000
NUMBERS = {
    "openai batches": ("GET", f"/v1/batches?limit={DIGITS}", {}),
    "anthropic batches": ("GET", f"/v1/messages/batches?limit={DIGITS}", {}),
    "anthropic models": ("GET", f"/v1/models?limit={DIGITS}", {"anthropic_version": "2023-06-01"}),
    "gemini models": ("GET", f"/v1beta/models?pageSize={DIGITS}", {}),
    "gemini models of a page": ("GET", f"/v1beta/models?pageToken={DIGITS}", {}),
    "gemini batches": ("GET", f"/v1beta/batches?pageSize={DIGITS}", {}),
    "gemini batches of a page": ("GET", "/v1beta/batches?pageToken=²", {}),
    "gemini offset": (
        "POST",
        "/upload/v1beta/files?upload_id=sim000001",
        {"x_goog_upload_command": "upload", "x_goog_upload_offset": DIGITS},
    ),
    "a negative limit": ("GET", "/v1/batches?limit=-1", {}),
    "a limit that is a text": ("GET", "/v1/batches?limit=many", {}),
}


@pytest.mark.parametrize(("method", "path", "headers"), NUMBERS.values(), ids=NUMBERS)
async def test_a_number_that_cannot_be_read_is_refused(method: str, path: str, headers: dict[str, str]) -> None:
    start = http(method="POST", path="/upload/v1beta/files", x_goog_upload_command="start", connection="close")
    async with Simulator() as sim:
        await exchange(sim, start)
        reply = await exchange(sim, http(method=method, path=path, connection="close", **headers))
        assert (reply.status, "error" in json.loads(reply.body)) == (400, True)
        assert (await exchange(sim, http(chat(), connection="close"))).status == 200


async def test_a_length_of_5000_digits_is_refused_with_the_usual_limits() -> None:
    async with Simulator() as sim:
        reply = await exchange(sim, POST + b"content-length: " + b"9" * 5_000 + b"\r\n\r\n")
    assert (reply.status, reply.is_whole) == (413, True)


async def test_a_length_with_zeros_in_front_is_read() -> None:
    body = chat(stream=False)
    async with Simulator("Hi") as sim:
        data = POST + b"connection: close\r\ncontent-length: " + b"0" * 5_000 + b"%d\r\n\r\n" % len(body) + body
        assert (await exchange(sim, data)).status == 200


@pytest.mark.parametrize("after", [DIGITS, "x", "²"])
async def test_a_position_that_is_no_number_is_refused(after: str) -> None:
    body = json.dumps({"model": "m", "input": "Hi", "background": True, "stream": True}).encode()
    async with Simulator("Hi") as sim:
        await exchange(sim, http(body, path="/v1/responses", connection="close"))
        path = f"/v1/responses/resp_sim-000001?stream=true&starting_after={after}"
        reply = await exchange(sim, http(method="GET", path=path, connection="close"))
    assert reply.status == 400
    assert "starting_after" in json.loads(reply.body)["error"]["message"]


async def test_an_unexpected_failure_is_answered() -> None:
    body = json.dumps({"batch": {"inputConfig": "a text"}}).encode()
    async with Simulator() as sim:
        reply = await exchange(sim, http(body, path="/v1beta/models/m:batchGenerateContent", connection="close"))
        assert reply.status == 500
        assert "the simulator failed: AttributeError" in json.loads(reply.body)["error"]["message"]
        assert (await exchange(sim, http(chat(), connection="close"))).status == 200


async def test_a_header_of_a_fault_may_hold_any_character() -> None:
    fault = r'extra_headers;headers={"x-note": "\ud83c\udf0a"}'
    async with Simulator("Hi") as sim:
        reply = await exchange(sim, http(chat(), x_simulator_fault=fault, connection="close"))
    assert (reply.status, reply.header("x-note")) == (200, "?")


async def test_paths_and_methods(sim: Simulator) -> None:
    lost = await exchange(sim, http(b"{}", path="/v1/embeddings", connection="close"))
    assert (lost.status, json.loads(lost.body)["error"]["message"]) == (404, "Invalid URL (POST /v1/embeddings)")
    wrong = await exchange(sim, http(method="GET", connection="close"))
    assert wrong.status == 405
    assert "HINT: use POST" in json.loads(wrong.body)["error"]["message"]
    assert (await exchange(sim, http(method="POST", path="/v1/models", connection="close"))).status == 405


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "http://x/v1/chat/completions?a=b"])
async def test_every_form_of_the_path(sim: Simulator, path: str) -> None:
    reply = await exchange(sim, http(chat(), path=path, connection="close"))
    assert decode_body("openai-chat", reply.body).completion == TEXT


async def test_nonsense_in_the_body(sim: Simulator) -> None:
    reply = await exchange(sim, http(b"{}", connection="close"))
    assert (reply.status, json.loads(reply.body)["error"]["message"]) == (400, "you must provide a model parameter")
    assert sim.requests[0].json == {}
    await exchange(sim, http(b"\xff", connection="close"))
    assert sim.requests[1].json is None


async def test_a_chunked_request_in_single_bytes(sim: Simulator) -> None:
    body = chat()
    pieces = b"".join(b"%x;note=1\r\n%c\r\n" % (1, byte) for byte in body)
    reply = await exchange(sim, CHUNKED + pieces + b"0\r\ntrailer: x\r\n\r\n")
    assert decode_body("openai-chat", reply.body).completion == TEXT
    assert sim.requests[0].json == json.loads(body)


async def test_the_client_may_ask_before_it_sends(sim: Simulator) -> None:
    reply = await exchange(sim, http(chat(), expect="100-continue", connection="close"))
    assert reply.raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_requests_follow_each_other_on_a_connection(sim: Simulator) -> None:
    data = http(chat(stream=False)) + http(chat(stream=False)) + http(chat(stream=False), connection="close")
    reply = await exchange(sim, data)
    assert reply.raw.count(b"HTTP/1.1 200 OK") == 3
    assert {request.connection for request in sim.requests} == {1}


async def test_http_10_closes_unless_asked(sim: Simulator) -> None:
    head = b"GET /v1/models HTTP/1.0\r\n%b\r\n"
    assert (await exchange(sim, head % b"")).raw.count(b"200 OK") == 1
    twice = head % b"connection: keep-alive\r\n" + head % b""
    assert (await exchange(sim, twice)).raw.count(b"200 OK") == 2


async def test_a_client_that_leaves_early_is_no_trouble(sim: Simulator) -> None:
    for data in (b"", b"POST", POST, POST + b"content-length: 900\r\n\r\nabc"):
        _, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(data)
        writer.close()
        await writer.wait_closed()
    assert (await exchange(sim, http(chat(), connection="close"))).status == 200


async def test_secrets_are_not_kept(sim: Simulator) -> None:
    await exchange(
        sim, http(chat(), authorization="Bearer sk-very-secret-1234", x_api_key="key-5678", connection="close")
    )
    headers = sim.requests[0].headers
    assert (headers["authorization"], headers["x-api-key"]) == ("Bearer ...1234", "...5678")
    assert "secret" not in repr(sim.requests)


def test_headers_of_the_same_name_are_joined() -> None:
    reply = parse_reply(b"HTTP/1.1 200 OK\r\na: 1\r\n\r\n", "fin")
    assert reply.header("a") == "1"
