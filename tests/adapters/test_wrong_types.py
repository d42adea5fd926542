"""No value disappears without a warning because of its type: one rule for all wire APIs."""

from __future__ import annotations

from typing import Any

import pytest

import cuts
from edited_json import as_json, edited, replaced
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.events import (
    Event,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.testing import encode_events
from lm_deluge.usage import Usage

WORD = "WORD@OF@TEXT"
APIS = [(api, "m") for api in adapter_names()]
APIS += [
    ("bedrock-invoke", model) for model in ("anthropic.claude-x", "amazon.nova-x", "meta.llama3-x", "amazon.titan-x")
]
ODD: list[Any] = [123, -1.5, True, [5], {"a": 1}, [[]]]


def read(api: str, chunks: list[bytes]) -> tuple[ResponseFinished, int, str]:
    """Return the last event, the number of ignored frames and values, and the text."""
    row = ProviderRow(id="p", otel_name="p", adapter=api, base_url="")
    call = Call(model=ModelRow(id="m", name="m", provider="p"), provider=row, conversation=Conversation())
    decoder = find_adapter(api).decoder(call)
    events = [event for data in chunks for event in decoder.feed(data)] + decoder.close()
    assert decoder.error is None
    last = events[-1]
    assert isinstance(last, ResponseFinished)
    return last, decoder.ignored, "".join(event.text for event in events if isinstance(event, TextDelta))


def bodies(api: str, model: str, *middle: Event, reason: str = "stop") -> list[bytes]:
    usage = UsageReported(Usage(input_tokens=3, output_tokens=4))
    events = [ResponseStarted("id-1", model), *middle, usage, ResponseFinished(reason)]
    return [b"".join(encode_events(api, events)), find_encoder(api).encode_response(events)]


def with_other_text(body: bytes, value: Any) -> bytes:
    """Return a body with a value in place of each text that contains `WORD`: plain answers have one, and some streams
    end with the whole text.
    """
    texts = [text for text in (b'"%b"' % WORD.encode(), b'"kept %b kept"' % WORD.encode()) if holds(body, text)]
    for text in texts:
        body = replaced(body, text, as_json(value))
    return body


def holds(body: bytes, text: bytes) -> bool:
    found = []

    def look(each: bytes) -> bytes:
        found.append(text in each)
        return each

    edited(body, look)
    return any(found)


@pytest.mark.parametrize(("api", "model"), APIS)
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_in_place_of_text(api: str, model: str, odd: Any) -> None:
    for body in bodies(api, model, TextDelta("kept "), TextDelta(WORD), TextDelta(" kept")):
        broken = with_other_text(body, odd)
        before = read(api, [body])
        finished, ignored, text = read(api, [broken])
        assert WORD not in text
        assert finished.warnings == (*before[0].warnings, "wrong_type")
        assert ignored > before[1]
        assert (finished, ignored, text) == read(api, cuts.every(broken, 1))


@pytest.mark.parametrize("api", ["anthropic-messages", "openai-chat", "gemini-generate", "ollama-chat", "cohere-v2"])
@pytest.mark.parametrize("odd", [123, {"a": 1}], ids=repr)
def test_in_place_of_reasoning(api: str, odd: Any) -> None:
    body, _ = bodies(api, "m", ReasoningDelta(WORD), TextDelta("kept"))
    broken = replaced(body, b'"%b"' % WORD.encode(), as_json(odd))
    finished, _, text = read(api, [broken])
    assert text == "kept"
    if odd == 123 or api != "openai-chat":  # an object may contain the text of reasoning
        assert "wrong_type" in finished.warnings


@pytest.mark.parametrize("api", adapter_names())
def test_in_place_of_the_name_of_a_tool(api: str) -> None:
    call = [ToolCallStarted(0, "c", WORD), ToolCallDelta(0, "{}"), ToolCallFinished(0, "c", WORD, "{}", {})]
    for body in bodies(api, "m", TextDelta("kept"), *call, reason="tool_calls"):
        finished, ignored, _ = read(api, [replaced(body, b'"%b"' % WORD.encode(), b"[7]")])
        assert "wrong_type" in finished.warnings
        assert ignored > 0


NUMBERS = {
    "anthropic-messages": (b'"index":0', b'"index":"zero"'),
    "bedrock-converse": (b'"contentBlockIndex":0', b'"contentBlockIndex":{}'),
    "gemini-generate": (b'"index":0', b'"index":"zero"'),
    "gemini-interactions": (b'"index":0', b'"index":[0]'),
    "mistral-chat": (b'"index":0', b'"index":"zero"'),
    "ollama-chat": (b'"eval_count":4', b'"eval_count":"four"'),
    "openai-chat": (b'"index":0', b'"index":"zero"'),
    "openai-responses": (b'"output_index":0', b'"output_index":"zero"'),
}


@pytest.mark.parametrize("api", NUMBERS)
def test_text_in_place_of_a_number(api: str) -> None:
    body, _ = bodies(api, "m", TextDelta("kept"))
    finished, ignored, text = read(api, [replaced(body, *NUMBERS[api])])
    assert text == "kept"
    assert "wrong_type" in finished.warnings
    assert ignored > 0


@pytest.mark.parametrize("api", adapter_names())
def test_null_is_no_wrong_type(api: str) -> None:
    body, _ = bodies(api, "m", TextDelta("kept "), TextDelta(WORD), TextDelta(" kept"))
    finished, _, text = read(api, [with_other_text(body, None)])
    assert (text, "wrong_type" in finished.warnings) == ("kept  kept", False)
