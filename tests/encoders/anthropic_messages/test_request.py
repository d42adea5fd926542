"""Parse requests of Anthropic's Messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    FilePart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool

API = "anthropic-messages"
PNG = b"\x89PNG\r\n\x1a\n"
LEAST = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def parse(**fields: Any) -> ParsedRequest:
    body = {name: value for name, value in {**LEAST, **fields}.items() if value is not ...}
    return find_encoder(API).parse_request(json.dumps(body).encode())


def messages_of(*messages: tuple[str, Any]) -> list[Message]:
    return parse(messages=[{"role": role, "content": content} for role, content in messages]).conversation.messages


def refusal_of(**fields: Any) -> str:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields)
    assert (caught.value.status_code, caught.value.type) == (400, "invalid_request_error")
    return caught.value.message


def opaque(kind: str, data: Any) -> ProviderDataPart:
    return ProviderDataPart(API, kind, data)


def test_the_least_request() -> None:
    found = parse()
    assert (found.model, found.is_streamed, found.wants_usage) == ("claude-x", False, True)
    assert found.params.max_new_tokens == 9
    assert found.conversation.messages == [Message.user("Hi")]
    assert (found.tools, found.output, found.cache, found.extra) == ((), None, None, {})


def test_the_path_may_say_the_model_and_whether_to_stream() -> None:
    body = {**LEAST, "anthropic_version": "vertex-2023-10-16"}
    del body["model"]
    found = find_encoder(API).parse_request(json.dumps(body).encode(), model="claude-y", is_streamed=True)
    assert (found.model, found.is_streamed, found.extra) == ("claude-y", True, {})


def test_parameters() -> None:
    found = parse(
        temperature=0.5, top_p=0.9, top_k=4, stop_sequences=["x"], service_tier="auto", stream=True, metadata={"a": 1}
    )
    params = found.params
    assert (params.temperature, params.top_p, params.stop, params.service_tier) == (0.5, 0.9, ("x",), "auto")
    assert found.is_streamed
    assert found.extra == {"top_k": 4, "metadata": {"a": 1}}


@pytest.mark.parametrize(
    ("choice", "name", "is_parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", None),
        ({"type": "tool", "name": "f"}, "f", None),
        ({"type": "brand_new"}, None, None),
    ],
)
def test_the_choice_of_tools(choice: dict, name: str | None, is_parallel: bool | None) -> None:
    params = parse(tool_choice=choice).params
    assert (params.tool_choice, params.parallel_tool_calls) == (name, is_parallel)


THINKING = [
    ({"thinking": {"type": "disabled"}}, "none", {}),
    ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, "high", {}),
    ({"thinking": {"type": "adaptive"}}, None, {"thinking": {"type": "adaptive"}}),
    (
        {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "low"}},
        "low",
        {"thinking": {"type": "adaptive", "display": "omitted"}},
    ),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 2_048}},
        None,
        {"thinking": {"type": "enabled", "budget_tokens": 2_048}},
    ),
    ({"output_config": {"effort": "low"}}, None, {"output_config": {"effort": "low"}}),
    (
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low", "task_budget": {"total": 9}}},
        "low",
        {"output_config": {"effort": "low", "task_budget": {"total": 9}}},
    ),
]


@pytest.mark.parametrize(("fields", "effort", "extra"), THINKING)
def test_how_to_think(fields: dict, effort: str | None, extra: dict) -> None:
    found = parse(**fields)
    assert (found.params.reasoning_effort, found.extra) == (effort, extra)


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"output_format": {"type": "json_schema", "schema": {"type": "object"}}},
    ],
)
def test_structured_output(fields: dict) -> None:
    found = parse(**fields)
    assert (found.output, found.extra) == ({"type": "object"}, {})


def test_tools() -> None:
    schema = {"type": "object", "properties": {}}
    plain = {"name": "f", "description": "d", "input_schema": schema, "strict": True}
    typed = {"type": "custom", "name": "g", "input_schema": schema, "cache_control": {"type": "ephemeral"}}
    later = {"name": "h", "input_schema": schema, "defer_loading": True}
    search = {"type": "web_search_20250305", "name": "web_search"}
    long = {"name": "n" * 65, "input_schema": schema}
    parsed = parse(tools=[plain, typed, later, search, long])
    assert parsed.tools == (
        Tool(name="f", description="d", parameters=schema, strict=True),
        Tool(name="g", parameters=schema),
        Tool(name="h", parameters=schema),
        ProviderTool(search),
        ProviderTool(long),
    )
    assert parsed.extra == {"tools": [plain, typed, later, search, long]}
    assert parse(tools=[plain, typed, search, long]).extra == {}


MARK = {"cache_control": {"type": "ephemeral"}}
MARKED = {"role": "user", "content": [{"type": "text", "text": "a", **MARK}]}
TOOL = {"name": "f", "input_schema": {}, **MARK}


@pytest.mark.parametrize(
    ("fields", "cache"),
    [
        ({"tools": [TOOL]}, "tools_only"),
        ({"tools": [TOOL], "system": [{"type": "text", "text": "s", **MARK}]}, "system_and_tools"),
        ({"messages": [MARKED], "tools": [TOOL]}, "last_user_message"),
        ({"messages": [MARKED] * 2}, "last_2_user_messages"),
        ({"messages": [MARKED] * 4}, "last_3_user_messages"),
    ],
)
def test_cache_marks(fields: dict, cache: str) -> None:
    assert parse(**fields).cache == cache


def test_system_prompts() -> None:
    assert parse(system="s").conversation.messages[0] == Message.system("s")
    both = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", **MARK}]
    assert parse(system=both).conversation.messages[0] == Message("system", (TextPart("a"), TextPart("b")))
    assert messages_of(("user", "a"), ("system", "b"))[1] == Message.system("b")


def test_user_content() -> None:
    data = base64.b64encode(PNG).decode()
    pdf = base64.b64encode(b"%PDF-1").decode()
    found = {"type": "search_result", "source": "s", "title": "t", "content": []}
    cited = {"type": "document", "source": {"type": "file", "file_id": "f"}, "citations": {"enabled": True}}
    blocks = [
        {"type": "text", "text": "Look"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "image", "source": {"type": "url", "url": "https://a.test"}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "image", "source": {"type": "brand_new"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": pdf}, "title": "t"},
        {"type": "document", "source": {"type": "url", "url": "https://a.test"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}},
        cited,
        found,
    ]
    (message,) = messages_of(("user", blocks))
    assert message.parts == (
        TextPart("Look"),
        ImagePart(Media(media_type="image/png", data=PNG)),
        ImagePart(Media(url="https://a.test")),
        ImagePart(Media(file_id="f")),
        opaque("block", blocks[4]),
        FilePart(Media(media_type="application/pdf", data=b"%PDF-1", filename="t")),
        FilePart(Media(url="https://a.test")),
        FilePart(Media(media_type="text/plain", data="é".encode())),
        opaque("block", cited),
        opaque("block", found),
    )


def test_results_are_messages_of_their_own() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://a.test"}}
    odd = {"type": "tool_result", "tool_use_id": "d", "content": [{"type": "tool_reference", "tool_name": "f"}]}
    blocks = [
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True},
        {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "x"}, image]},
        odd,
        {"type": "text", "text": "Well?"},
    ]
    calls = [{"type": "tool_use", "id": each, "name": "f", "input": {}} for each in "abcd"]
    assert messages_of(("assistant", calls), ("user", blocks))[1:] == [
        Message(
            "tool",
            (
                ToolResultPart("a", "1"),
                ToolResultPart("b", "", is_error=True),
                ToolResultPart("c", "x", (ImagePart(Media(url="https://a.test")),)),
            ),
        ),
        Message("user", (opaque("block", odd), TextPart("Well?"))),
    ]


def test_assistant_content() -> None:
    cited = [{"type": "page_location", "cited_text": "c"}]
    hidden = {"type": "redacted_thinking", "data": "x"}
    caller = {"type": "code", "tool_id": "s"}
    blocks = [
        {"type": "thinking", "thinking": "Hm", "signature": "s"},
        {"type": "thinking", "thinking": "", "signature": "t"},
        {"type": "thinking", "thinking": "unsigned"},
        hidden,
        {"type": "text", "text": "a", "citations": cited},
        {"type": "text", "text": "b", "citations": None},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}, "caller": caller},
    ]
    result = {"type": "tool_result", "tool_use_id": "t", "content": "1"}
    (_, message, _) = messages_of(("user", "Hi"), ("assistant", blocks), ("user", [result]))
    assert message.parts == (
        ReasoningPart("Hm"),
        opaque("signature", "s"),
        opaque("signature", "t"),
        ReasoningPart("unsigned"),
        opaque("block", hidden),
        TextPart("a"),
        opaque("citations", cited),
        TextPart("b"),
        ToolCallPart("t", "f", '{"x":1}', {"x": 1}),
        opaque("tool_use", {"caller": caller}),
    )


def said(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


def shown(**source: Any) -> dict[str, Any]:
    return said({"type": "image", "source": source})


WRONG = [
    ({"model": ...}, "model: Field required"),
    ({"model": 5}, "model: Input should be a valid string"),
    ({"max_tokens": ...}, "max_tokens: Field required"),
    ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
    ({"max_tokens": 0}, "max_new_tokens=0 is not a number 1 or more"),
    ({"temperature": "hot"}, "temperature='hot' is not a number between 0 and 2"),
    ({"messages": ...}, "messages: Field required"),
    ({"messages": []}, "messages: at least one message is required"),
    ({"messages": "Hi"}, "messages: Input should be a valid list"),
    ({"messages": ["Hi"]}, "messages.0: Input should be a valid dictionary"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: Input should be a valid string or list"),
    (said(5), "messages.0.content.0: Input should be a valid dictionary"),
    (said({"text": "a"}), "messages.0.content.0.type: Field required"),
    (said({"type": "text"}), "messages.0.content.0.text: Field required"),
    (said({"type": "image"}), "messages.0.content.0.source: Field required"),
    (said({"type": "tool_use", "id": "a", "name": "f", "input": "x"}, role="assistant"), "dictionary"),
    (shown(type="url", url="/etc/passwd"), "Only http and https URLs are supported"),
    (shown(type="url", url="file:///etc/passwd"), "Only http and https URLs are supported"),
    (shown(type="base64", media_type="image/png", data="?"), "source.data: Input should be valid base64"),
    (shown(type="base64", media_type="image/png", data=""), "the file is empty"),
    ({"tools": [5]}, "tools.0: Input should be a valid dictionary"),
    ({"tools": [{"name": "f"}]}, "tools.0.input_schema: Field required"),
    ({"tool_choice": "auto"}, "tool_choice: Input should be a valid dictionary"),
    ({"system": 5}, "system: Input should be a valid string or list"),
    ({"thinking": 5}, "thinking: Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=lambda value: str(value)[:50])
def test_requests_that_cannot_be_answered(fields: dict, message: str) -> None:
    assert message in refusal_of(**fields)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_invalid_json(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="not valid JSON"):
        find_encoder(API).parse_request(body)


def test_a_body_that_is_not_an_object() -> None:
    with pytest.raises(BadRequestError, match="valid dictionary"):
        find_encoder(API).parse_request(b"[]")
