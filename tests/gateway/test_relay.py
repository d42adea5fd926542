"""Streams that are passed on: the same frames however they are cut, each as soon as its end has arrived."""

import re

from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.gateway.answers.relay import RELAY_ENDS, Relay

FRAMES = [
    b": comment\n\n",
    b'data: {"a":1}\r\n\r\n',
    b'event: x\rdata: {"b":2}\r\r',
    b'data: {"choices":[],"usage":{}}\n\n',
    b'data: {"c":3}\n\r\n',
    b"data: [DONE]\n\n",
]
BODY = b"".join(FRAMES)


def new_relay(*, keeps_usage: bool = True) -> Relay:
    return Relay(RELAY_ENDS["openai-chat"], is_sse=True, keeps_usage=keeps_usage)


def events_of(data: bytes) -> list[bytes]:
    """Return the events, without the blank lines between them."""
    return [event for event in re.split(rb"\n\n+", re.sub(rb"\r\n?", b"\n", data)) if event]


@given(cuts=st.lists(st.integers(1, len(BODY) - 1), unique=True))
def test_the_frames_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    ends = [*sorted(cuts), len(BODY)]
    relay, passed = new_relay(), b""
    for start, end in zip([0, *ends], ends, strict=False):
        passed += relay.feed(BODY[start:end], is_complete=end == len(BODY))
    assert events_of(passed + relay.close()) == events_of(BODY)


def test_a_frame_leaves_with_its_last_byte() -> None:
    relay, passed = new_relay(), b""
    for number, frame in enumerate(FRAMES, 1):
        for position in range(len(frame)):
            passed += relay.feed(frame[position : position + 1], is_complete=number == len(FRAMES))
        assert len(events_of(passed)) == number


def test_what_is_missing_at_the_end_is_added_and_what_follows_it_is_not_passed_on() -> None:
    cut = new_relay()
    assert cut.feed(b'data: {"a":1}', is_complete=True) == b""
    assert cut.close() == b'data: {"a":1}\n\ndata: [DONE]\n\n'
    surplus = new_relay()
    assert surplus.feed(b"data: [DONE]\n\ndata: {}\n\n", is_complete=True) == b"data: [DONE]\n\n"
    assert surplus.close() == b""


def test_frames_that_no_client_can_read_are_left_out() -> None:
    relay = new_relay(keeps_usage=False)
    unreadable = (
        b'data: {"a":\n\n' + b'data: {"a":"\xff"}\n\n' + b"event: x\n\n" + b'data: {"choices":[],"usage":{}}\n\n'
    )
    assert relay.feed(unreadable + b'data: {"a":1}\n\n', is_complete=False) == b'data: {"a":1}\n\n'
