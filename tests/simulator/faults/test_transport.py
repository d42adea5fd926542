"""Each fault of the connection puts the described bytes on the wire."""

from __future__ import annotations

import re

import pytest

from lm_deluge import errors
from lm_deluge.simulator.faults.transport import TRANSPORT_FAULTS
from simulator.checks import Checks, failing, healthy
from simulator.raw_client import TEXT, Reply

check = Checks(TRANSPORT_FAULTS)


@pytest.mark.parametrize("name", TRANSPORT_FAULTS)
async def test_the_bytes_match_the_description(name: str) -> None:
    await check.run(name)


def test_every_fault_is_checked() -> None:
    check.assert_complete()


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
