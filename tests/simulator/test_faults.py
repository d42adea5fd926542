"""Every fault is on the wire what its name says."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import brotli
import pytest
import zstandard

from lm_deluge import errors
from lm_deluge.errors import ConfigurationError
from lm_deluge.providers.openai_chat import OpenAIChat
from lm_deluge.response import APIResponse
from lm_deluge.simulator import FAULTS, Fault, Simulator
from lm_deluge.testing import decode_body
from simulator.raw_client import TEXT, Reply, ask

API = "openai-chat"

# Shorter than the defaults, so that the tests do not wait.
QUICK: dict[str, str] = {
    "slow_first_byte": "seconds=0.06",
    "slow_first_token": "seconds=0.06",
    "buffered": "seconds=0.06",
    "drip": "seconds=0",
    "endless_pings": "seconds=0.01",
    "endless_empty_deltas": "seconds=0.01",
    "huge_line": "size=200000",
    "gzip_bomb": "size=3145728",
}
ENDLESS = ("no_answer", "silence", "endless_pings", "endless_empty_deltas", "never_closes")

Check = Callable[[Reply], None]
CHECKS: dict[str, Check] = {}


def check(*names: str) -> Callable[[Check], Check]:
    """Make a function the check of these faults."""

    def register(function: Check) -> Check:
        CHECKS.update(dict.fromkeys(names, function))
        return function

    return register


@pytest.fixture
async def sim() -> Simulator:
    async with Simulator(TEXT) as simulator:
        yield simulator


@pytest.mark.parametrize("name", FAULTS)
async def test_the_bytes_are_what_the_name_says(sim: Simulator, name: str) -> None:
    fault = f"{name};{QUICK[name]}" if name in QUICK else name
    reply = await ask(sim, fault, timeout=0.15 if name in ENDLESS else 10.0, stream_options={"include_usage": True})
    CHECKS[name](reply)
    assert sim.stats.faults == {name: 1}


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"no_answer", "silence"}))
async def test_plain_answers_are_no_trouble(sim: Simulator, name: str) -> None:
    """Either the fault is one of plain answers too, or the answer is whole."""
    fault = f"{name};{QUICK[name]}" if name in QUICK else name
    reply = await ask(sim, fault, stream=False)
    assert reply.end in ("fin", "reset")


def healthy(reply: Reply) -> APIResponse:
    assert (reply.status, reply.end, reply.is_whole) == (200, "fin", True)
    response = decode_body(API, reply.body)
    assert response.finish_reason == "stop"
    return response


def events_of(reply: Reply) -> list[dict]:
    """Return the JSON of every event but the mark."""
    return [json.loads(line[6:]) for line in reply.body.split(b"\n") if line.startswith(b"data: {")]


def failing(reply: Reply, kind: type[errors.DelugeError]) -> errors.DelugeError:
    with pytest.raises(errors.DelugeError) as caught:
        decode_body(API, reply.body)
    assert type(caught.value) is kind
    return caught.value


def refused(reply: Reply, kind: type[errors.APIError]) -> errors.APIError:
    assert reply.is_whole
    error = OpenAIChat().classify_error(reply.status, dict(reply.headers), reply.body)
    assert type(error) is kind
    return error


# Bytes


@check("split_utf8")
def _(reply: Reply) -> None:
    assert healthy(reply).completion == TEXT
    assert any(not _is_utf8(chunk) for chunk in reply.chunks)
    assert all(not re.search("[üß🌊]", chunk.decode("utf-8", "ignore")) for chunk in reply.chunks)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@check("byte_by_byte")
def _(reply: Reply) -> None:
    assert healthy(reply).completion == TEXT
    assert {len(chunk) for chunk in reply.chunks} == {1}


@check("invalid_utf8")
def _(reply: Reply) -> None:
    assert b"\xff\xfe" in reply.body
    assert healthy(reply).completion.replace("\ufffd\ufffd", "") == TEXT


@check("bom")
def _(reply: Reply) -> None:
    assert reply.body.startswith(b"\xef\xbb\xbfdata:")
    assert healthy(reply).completion == TEXT


@check("late_bom")
def _(reply: Reply) -> None:
    assert b"\n\n\xef\xbb\xbfdata:" in reply.body
    assert healthy(reply).completion == TEXT


@check("crlf")
def _(reply: Reply) -> None:
    assert reply.body.count(b"\n") == reply.body.count(b"\r\n") > 10
    assert healthy(reply).completion == TEXT


@check("cr_only")
def _(reply: Reply) -> None:
    assert b"\n" not in reply.body
    assert healthy(reply).completion == TEXT


@check("mixed_newlines")
def _(reply: Reply) -> None:
    ends = set(re.findall(rb"\r\n|\r|\n", reply.body))
    assert ends == {b"\r\n", b"\r", b"\n"}
    assert healthy(reply).completion == TEXT


@check("u2028")
def _(reply: Reply) -> None:
    said = healthy(reply).completion
    assert all(character in said for character in "\u2028\u2029\x85\x0b\x0c")
    assert "\u2028".encode() in reply.body


@check("comments")
def _(reply: Reply) -> None:
    assert reply.body.count(b": keep-alive\n\n:\n\n") == len(reply.chunks)
    assert healthy(reply).completion == TEXT


@check("multiline_data")
def _(reply: Reply) -> None:
    assert b'data: {\ndata:  "id"' in reply.body
    assert healthy(reply).completion == TEXT


@check("event_without_data")
def _(reply: Reply) -> None:
    assert b"event: ping\n\nid: 7\n\n" in reply.body
    assert healthy(reply).completion == TEXT


@check("unknown_fields")
def _(reply: Reply) -> None:
    assert b"foo: bar\nretry: soon\ndata:" in reply.body
    assert healthy(reply).completion == TEXT


@check("empty_data")
def _(reply: Reply) -> None:
    assert b"data:\n\ndata\n\n" in reply.body
    assert healthy(reply).completion == TEXT


@check("nul")
def _(reply: Reply) -> None:
    assert b"id: a\0b\n:\0\n" in reply.body
    assert "nul:\0." in healthy(reply).completion


@check("unterminated_last_event")
def _(reply: Reply) -> None:
    assert reply.body.endswith(b"\n\ndata: [DONE]")
    assert healthy(reply).completion == TEXT


@check("huge_line")
def _(reply: Reply) -> None:
    assert max(map(len, reply.body.split(b"\n"))) > 200_000
    assert healthy(reply).completion == TEXT


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.decompress),
    "deflate": ("deflate", zlib.decompress),
    "raw_deflate": ("deflate", lambda data: zlib.decompress(data, -15)),
    "br": ("br", brotli.decompress),
    "zstd": ("zstd", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
}


@pytest.mark.parametrize("name", CODINGS)
async def test_compressed_bodies_are_flushed_at_every_event(sim: Simulator, name: str) -> None:
    reply = await ask(sim, name)
    coding, decompress = CODINGS[name]
    assert reply.header("content-encoding") == coding
    assert len(reply.chunks) > 10
    reply.body = decompress(reply.body)
    assert healthy(reply).completion == TEXT


@check(*CODINGS)
def _(reply: Reply) -> None:
    assert b"data: {" not in reply.body
    assert reply.is_whole


@check("gzip_bomb")
def _(reply: Reply) -> None:
    data = zlib.decompressobj(31).decompress(reply.body)
    assert len(data) > 3 * 2**20
    assert len(reply.body) < len(data) / 200
    assert reply.header("content-encoding") == "gzip"


@check("truncated_gzip")
def _(reply: Reply) -> None:
    assert reply.is_whole
    with pytest.raises(EOFError):
        gzip.decompress(reply.body)


@check("unknown_encoding")
def _(reply: Reply) -> None:
    assert reply.header("content-encoding") == "x-rot13"


@check("not_json")
def _(reply: Reply) -> None:
    error = failing(reply, errors.ProtocolError)
    assert TEXT.startswith(error.partial.completion)


@check("html_200")
def _(reply: Reply) -> None:
    assert (reply.status, reply.header("content-type")) == (200, "text/html; charset=utf-8")
    failing(reply, errors.ContentTypeError)


@check("wrong_content_type")
def _(reply: Reply) -> None:
    assert reply.header("content-type") == "text/html"
    assert healthy(reply).completion == TEXT


@check("no_content_type")
def _(reply: Reply) -> None:
    assert "content-type" not in dict(reply.headers)
    assert healthy(reply).completion == TEXT


@check("empty_body")
def _(reply: Reply) -> None:
    assert (reply.status, reply.body, reply.is_whole) == (200, b"", True)
    failing(reply, errors.TruncatedError)


# The connection


@check("slow_first_byte", "slow_first_token", "buffered")
def _(reply: Reply) -> None:
    assert reply.seconds >= 0.06
    assert healthy(reply).completion == TEXT


@check("no_answer")
def _(reply: Reply) -> None:
    assert (reply.raw, reply.end) == (b"", "open")


@check("silence")
def _(reply: Reply) -> None:
    assert reply.end == "open"
    assert len(reply.chunks) == 1 + 3
    assert not reply.is_whole


@check("drip")
def _(reply: Reply) -> None:
    assert {len(chunk) for chunk in reply.chunks} == {1}
    assert healthy(reply).completion == TEXT


@check("endless_pings")
def _(reply: Reply) -> None:
    assert reply.end == "open"
    assert set(reply.chunks[4:]) == {b": ping\n\n"}


@check("endless_empty_deltas")
def _(reply: Reply) -> None:
    assert reply.end == "open"
    assert set(reply.chunks[4:]) == {reply.chunks[0]}


@check("cut_chunk")
def _(reply: Reply) -> None:
    assert (reply.end, reply.is_whole) == ("fin", False)
    assert len(reply.chunks) == 1 + 3
    assert reply.raw.endswith(b"\n\n\r\n")


@check("reset")
def _(reply: Reply) -> None:
    assert (reply.end, reply.is_whole) == ("reset", False)
    assert len(reply.chunks) == 1 + 3


@check("short_length")
def _(reply: Reply) -> None:
    assert 0 < len(reply.body) < int(reply.header("content-length"))
    assert reply.end == "fin"


@check("empty_reply")
def _(reply: Reply) -> None:
    assert (reply.raw, reply.end) == (b"", "fin")


@check("reset_first")
def _(reply: Reply) -> None:
    assert (reply.raw, reply.end) == (b"", "reset")


@check("clean_truncation")
def _(reply: Reply) -> None:
    assert (reply.end, reply.is_whole) == ("fin", True)
    assert TEXT.startswith(failing(reply, errors.TruncatedError).partial.completion)


@check("close_truncation")
def _(reply: Reply) -> None:
    assert not {"content-length", "transfer-encoding"} & {name for name, _ in reply.headers}
    assert reply.header("connection") == "close"
    failing(reply, errors.TruncatedError)


@check("close_delimited")
def _(reply: Reply) -> None:
    assert not {"content-length", "transfer-encoding"} & {name for name, _ in reply.headers}
    assert healthy(reply).completion == TEXT


@check("http_10")
def _(reply: Reply) -> None:
    assert reply.head == "HTTP/1.0 200 OK"
    assert healthy(reply).completion == TEXT


@check("no_done")
def _(reply: Reply) -> None:
    assert b"[DONE]" not in reply.body
    response = healthy(reply)
    assert (response.completion, response.warnings) == (TEXT, ("no_done",))


@check("never_closes")
def _(reply: Reply) -> None:
    assert (reply.end, reply.is_whole) == ("open", False)
    assert reply.body.endswith(b"data: [DONE]\n\n")


@check("data_after_done")
def _(reply: Reply) -> None:
    assert reply.body.partition(b"data: [DONE]\n\n")[2].count(b'"content"') == 2
    assert healthy(reply).completion == TEXT


@check("redirect_other_origin")
def _(reply: Reply) -> None:
    assert reply.status == 307
    assert re.fullmatch(r"http://localhost:\d+/v1/chat/completions\?fault=none", reply.header("location"))


@check("redirect_same_origin")
def _(reply: Reply) -> None:
    assert (reply.status, reply.header("location")) == (307, "/v1/chat/completions?fault=none")


@check("redirect_loop")
def _(reply: Reply) -> None:
    assert (reply.status, reply.header("location")) == (307, "/v1/chat/completions?fault=redirect_loop")


@check("keepalive_race")
def _(reply: Reply) -> None:
    assert healthy(reply).completion == TEXT


@check("huge_header")
def _(reply: Reply) -> None:
    assert len(reply.header("x-huge")) == 70_000


@check("duplicate_content_length")
def _(reply: Reply) -> None:
    assert len({value for name, value in reply.headers if name == "content-length"}) == 2


@check("informational")
def _(reply: Reply) -> None:
    assert reply.raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n")
    assert healthy(reply).completion == TEXT


@check("bad_status_line")
def _(reply: Reply) -> None:
    assert (reply.raw, reply.end) == (b"220 mail.example.org ESMTP\r\n", "fin")


@check("bad_chunk_size")
def _(reply: Reply) -> None:
    assert reply.raw.endswith(b"\r\nno size\r\n")


# Errors by status


KINDS = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.QuotaExceededError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    413: errors.RequestTooLargeError,
    429: errors.RateLimitError,
    503: errors.OverloadedError,
    529: errors.OverloadedError,
}


@check("status", *(name for name in FAULTS if name.startswith("status_")))
def _(reply: Reply) -> None:
    refused(reply, KINDS.get(reply.status, errors.ServerError))


WAITS = {
    "retry_after_ms": 0.05,
    "retry_after_seconds": 1.0,
    "retry_after_date": 1.0,
    "retry_after_negative": None,
    "retry_after_nan": None,
    "retry_after_past": None,
    "retry_after_garbage": None,
    "retry_after_day": 86_400.0,
    "retry_after_absurd": None,
}


@pytest.mark.parametrize("name", WAITS)
async def test_waits_are_told(sim: Simulator, name: str) -> None:
    error = refused(await ask(sim, name), errors.RateLimitError)
    assert error.retry_after_s == WAITS[name]


@check(*WAITS)
def _(reply: Reply) -> None:
    assert reply.status == 429
    assert "retry-after" in dict(reply.headers)
    assert parsedate_to_datetime(reply.header("date"))


@check("quota")
def _(reply: Reply) -> None:
    refused(reply, errors.QuotaExceededError)


@check("context_length")
def _(reply: Reply) -> None:
    refused(reply, errors.ContextLengthError)


@check("content_filter_first")
def _(reply: Reply) -> None:
    refused(reply, errors.ContentFilterError)


@check("x_should_retry_false")
def _(reply: Reply) -> None:
    assert refused(reply, errors.OverloadedError).should_retry is False


@check("x_should_retry_true")
def _(reply: Reply) -> None:
    assert refused(reply, errors.BadRequestError).should_retry is True


@check("error_html")
def _(reply: Reply) -> None:
    assert refused(reply, errors.ServerError).message == "an HTML page: 502 Bad Gateway"


@check("error_empty")
def _(reply: Reply) -> None:
    assert reply.body == b""
    refused(reply, errors.ServerError)


@check("error_text")
def _(reply: Reply) -> None:
    assert refused(reply, errors.ServerError).message == "upstream connect error"


@check("json_error_200")
def _(reply: Reply) -> None:
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    failing(reply, errors.RateLimitError)


@check("in_band_error_first")
def _(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.body.startswith(b'data: {"error":')
    failing(reply, errors.OverloadedError)


@check("in_band_error_mid")
def _(reply: Reply) -> None:
    assert len(reply.chunks) == 1 + 3 + 1
    error = failing(reply, errors.ServerError)
    assert TEXT.startswith(error.partial.completion)
    assert error.partial.completion


# What is said


@check("second_finish")
def _(reply: Reply) -> None:
    reasons = [choice["finish_reason"] for event in events_of(reply) for choice in event["choices"]]
    assert reasons[-2:] == ["stop", "length"]
    assert healthy(reply).raw_finish_reason == "stop"


@check("empty_choices")
def _(reply: Reply) -> None:
    first = events_of(reply)[0]
    assert (first["choices"], first["id"]) == ([], "")
    assert "prompt_filter_results" in first
    assert healthy(reply).completion == TEXT


@check("null_delta")
def _(reply: Reply) -> None:
    assert b'"delta":null' in reply.body
    assert b'"delta":{"content":null' in reply.body
    assert healthy(reply).completion == TEXT


@check("unknown_chunk")
def _(reply: Reply) -> None:
    assert b'"hologram"' in reply.body
    assert healthy(reply).completion == TEXT


@check("plain_for_stream")
def _(reply: Reply) -> None:
    assert reply.header("content-type") == "application/json"
    assert json.loads(reply.body)["object"] == "chat.completion"
    assert healthy(reply).completion == TEXT


@check("missing_usage")
def _(reply: Reply) -> None:
    assert all(event["usage"] is None for event in events_of(reply))
    assert healthy(reply).usage is None


@check("other_model_name")
def _(reply: Reply) -> None:
    assert healthy(reply).model_external == "other-model-2024-01-01"


@check("empty_answer")
def _(reply: Reply) -> None:
    assert healthy(reply).content.parts == ()


@check("content_filter_mid")
def _(reply: Reply) -> None:
    response = decode_body(API, reply.body)
    assert response.finish_reason == "content_filter"
    assert TEXT.startswith(response.completion)
    assert response.completion


@check("refusal_mid")
def _(reply: Reply) -> None:
    response = decode_body(API, reply.body)
    assert (response.finish_reason, response.raw_finish_reason) == ("refusal", "stop")
    assert response.content.refusal == "I cannot go on with that."


@check("bad_tool_json")
def _(reply: Reply) -> None:
    (call,) = decode_body(API, reply.body).tool_calls
    assert (call.name, call.arguments_text, call.arguments) == ("get_weather", '{"city": "Par', None)
    assert call.arguments_error


def fragments(reply: Reply) -> list[dict]:
    deltas = [choice["delta"] for event in events_of(reply) for choice in event["choices"]]
    return [call for delta in deltas for call in delta.get("tool_calls", ())]


def both_calls(reply: Reply) -> tuple[str, ...]:
    calls = decode_body(API, reply.body).tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("get_weather", {"n": 0}), ("get_weather", {"n": 1})]
    return tuple(call.id for call in calls)


@check("interleaved_tool_calls")
def _(reply: Reply) -> None:
    assert [call["index"] for call in fragments(reply)] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert both_calls(reply) == ("call_0", "call_1")


@check("tool_calls_without_ids")
def _(reply: Reply) -> None:
    assert all("id" not in call for call in fragments(reply))
    both_calls(reply)


@check("tool_calls_repeated_ids")
def _(reply: Reply) -> None:
    assert {(call["index"], call["id"]) for call in fragments(reply)} == {(0, "call_0"), (1, "call_1")}
    assert {call["function"]["name"] for call in fragments(reply)} == {"get_weather"}
    both_calls(reply)


@check("tool_call_index_gaps")
def _(reply: Reply) -> None:
    assert {call["index"] for call in fragments(reply)} == {0, 10}
    both_calls(reply)


@check("tool_name_in_pieces")
def _(reply: Reply) -> None:
    names = [call["function"].get("name") for call in fragments(reply)]
    assert names[:4] == ["get_w", "eather", "get_w", "eather"]
    both_calls(reply)


def test_every_fault_is_checked_and_described() -> None:
    assert set(CHECKS) == set(FAULTS)
    assert all(description for description in FAULTS.values())


# Choosing


async def test_parameters_say_where(sim: Simulator) -> None:
    assert len((await ask(sim, "cut_chunk;after=0")).chunks) == 1
    assert len((await ask(sim, "cut_chunk; after=7")).chunks) == 1 + 7
    torn = await ask(sim, "cut_chunk;after=1;in_frame=true")
    assert len(torn.chunks) == 1 + 1 + 1
    assert not torn.body.endswith(b"\n\n")
    # Behind the last delta, but always before the end.
    late = await ask(sim, "clean_truncation;after=10000")
    assert failing(late, errors.TruncatedError).partial.completion == TEXT


async def test_a_status_with_everything_of_its_own() -> None:
    fault = Fault("status", status=418, headers={"x-pot": "tea"}, body="short and stout", content_type="text/plain")
    async with Simulator(faults=fault) as sim:
        reply = await ask(sim)
    assert (reply.status, reply.header("x-pot"), reply.body) == (418, "tea", b"short and stout")


async def test_faults_are_used_up_one_by_one() -> None:
    async with Simulator(TEXT, faults=["status_429", None, Fault("status_503")]) as sim:
        statuses = [(await ask(sim)).status for _ in range(5)]
        assert statuses == [429, 200, 503, 200, 200]
        assert [request.fault for request in sim.requests] == ["status_429", None, "status_503", None, None]


async def test_one_fault_is_for_every_request() -> None:
    async with Simulator(TEXT, faults="status_500") as sim:
        assert [(await ask(sim)).status for _ in range(3)] == [500, 500, 500]


async def test_a_request_chooses_by_model_without_using_up_the_list() -> None:
    async with Simulator(TEXT, faults=["status_429"]) as sim:
        assert (await ask(sim, model="simulator/status_503")).status == 503
        assert (await ask(sim, "none")).status == 200
        assert (await ask(sim)).status == 429


async def test_an_unknown_fault_is_said_to_be_one(sim: Simulator) -> None:
    assert (await ask(sim, "gremlins")).status == 400
    assert (await ask(sim, model="simulator/gremlins")).status == 404
    assert b"does not suit the fault" in (await ask(sim, "silence;seconds=soon")).body


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("gremlins", {}, "there is no fault 'gremlins'. Known: split_utf8, "),
        ("reset", {"wher": 3}, "fault reset has no parameter 'wher'. It has: after, in_frame."),
        ("bom", {"after": 3}, "fault bom has no parameter 'after'. It has: none."),
        ("reset", {"after": "3"}, "after='3' does not suit the fault reset"),
        ("drip", {"seconds": None}, "seconds=None does not suit the fault drip"),
        ("status", {"message": 3}, "message=3 does not suit the fault status"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(name: str, params: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        Fault(name, **params)


def test_faults_are_values() -> None:
    assert Fault("reset", after=3) == Fault("reset") == Fault.parse("reset; after=3")
    assert Fault.parse("status;status=418;body=hot;headers={}") == Fault("status", status=418, body="hot")
    assert Fault.parse("none") is None
    with pytest.raises(AttributeError):
        Fault("reset").name = "bom"
