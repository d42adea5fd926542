"""The public functions that decode a body."""

from __future__ import annotations

from typing import Any

import pytest

from lm_deluge.errors import ConfigurationError, RateLimitError, TruncatedError
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.testing.decode import decode_body, decode_events
from samples.chat_bytes import chunk, text

BODY = text("Hello") + chunk({}, "stop") + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "chunks",
    [BODY, bytearray(BODY), memoryview(BODY), [BODY], [BODY[:9], bytearray(BODY[9:])], iter([BODY])],
    ids=["bytes", "bytearray", "memoryview", "list", "mixed", "iterator"],
)
def test_whatever_holds_the_bytes(chunks: Any) -> None:
    assert decode_body("openai-chat", chunks).completion == "Hello"


def test_events() -> None:
    assert list(decode_events("openai-chat", BODY)) == [
        ResponseStarted("1"),
        TextDelta("Hello"),
        ResponseFinished("stop", "stop"),
    ]


def test_no_such_api() -> None:
    with pytest.raises(ConfigurationError, match="there is no wire API 'soap'"):
        decode_body("soap", BODY)


def test_a_failure_carries_what_came_before() -> None:
    with pytest.raises(TruncatedError) as cut:
        decode_body("openai-chat", text("Hel"))
    assert cut.value.partial is not None
    assert cut.value.partial.completion == "Hel"
    with pytest.raises(RateLimitError) as refused:
        decode_body("openai-chat", [text("Hel"), b'data: {"error": {"code": 429}}\n\n', text("lo")])
    assert refused.value.partial is not None
    assert refused.value.partial.completion == "Hel"
