"""Requests to Chat Completions, as parsed JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_deluge.adapters.openai_chat.json_schema import is_strict
from lm_deluge.config import SamplingParams
from lm_deluge.errors import ConfigurationError, InvalidPromptError, UnsupportedParameterError
from lm_deluge.models.rows import Capabilities, Quirks
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, ImagePart, ProviderDataPart, ReasoningPart, RefusalPart, ToolCallPart
from lm_deluge.prompt.tool import Tool
from samples.chat_bytes import chunk, read
from samples.chat_calls import body_of, request_of

PNG = b"\x89PNG\r\n\x1a\n rest"
PDF = b"%PDF-1.7 rest"
WAV = b"RIFF\0\0\0\0WAVEfmt "
MP3 = b"ID3 rest"
HI = Conversation.user("Hi")
ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
NOP = Tool(name="nop", strict=True)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def messages_of(*messages: Message, **fields: Any) -> list[dict]:
    return body_of(Conversation(messages), **fields)["messages"]


def content_of(message: Message, **fields: Any) -> Any:
    (sent,) = messages_of(message, **fields)
    assert sent["role"] == "user"
    return sent["content"]


def test_the_whole_of_a_simple_request() -> None:
    request = request_of(HI)
    assert (request.method, request.url) == ("POST", "https://acme.test/v1/chat/completions")
    assert request.headers == {"content-type": "application/json", "accept": "text/event-stream"}
    assert request.body == (
        b'{"model":"m-1","messages":[{"role":"user","content":"Hi"}],"stream":true,'
        b'"stream_options":{"include_usage":true}}'
    )


def test_a_plain_answer_is_asked_for_without_stream() -> None:
    request = request_of(HI, is_streamed=False)
    assert request.headers["accept"] == "application/json"
    assert request.body == b'{"model":"m-1","messages":[{"role":"user","content":"Hi"}]}'


def test_hosts_that_differ() -> None:
    quirks = Quirks(usage_option=False, max_tokens_field="max_tokens")
    body = body_of(HI, quirks=quirks, params=SamplingParams(max_new_tokens=5))
    assert "stream_options" not in body
    assert body["max_tokens"] == 5
    assert "max_completion_tokens" not in body


def test_roles() -> None:
    conversation = Conversation.system("s").developer("d").user("u").assistant("a")
    assert body_of(conversation)["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]


def test_names_of_speakers() -> None:
    message = Message("user", Message.user("Hi").parts, "ann")
    assert messages_of(message) == [{"role": "user", "content": "Hi", "name": "ann"}]


def test_several_pieces_of_text() -> None:
    assert content_of(Message.user("a").with_text("b")) == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert messages_of(Message.system("a").with_text("b")) == [{"role": "system", "content": "ab"}]


@pytest.mark.parametrize("source", ["bytes", "path", "path as text", "data URL"])
def test_images_that_travel_inside(source: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    url = f"data:image/png;base64,{b64(PNG)}"
    sources: dict[str, Any] = {"bytes": PNG, "path": path, "path as text": str(path), "data URL": url}
    assert content_of(Message.user("What is this?", image=sources[source])) == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def test_images_by_url_and_with_detail() -> None:
    message = Message.user().with_image("https://a.test/b.png", detail="low")
    assert content_of(message) == [{"type": "image_url", "image_url": {"url": "https://a.test/b.png", "detail": "low"}}]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "paper.pdf"
    path.write_bytes(PDF)
    data = f"data:application/pdf;base64,{b64(PDF)}"
    named = {"type": "file", "file": {"filename": "paper.pdf", "file_data": data}}
    assert content_of(Message.user(file=path)) == [named]
    unnamed = {"type": "file", "file": {"filename": "document.pdf", "file_data": data}}
    assert content_of(Message.user(file=PDF)) == [unnamed]
    renamed = Message.user().with_file(PDF, filename="x.pdf")
    assert content_of(renamed)[0]["file"]["filename"] == "x.pdf"
    uploaded = Message.user().with_file(Media(file_id="file-1"))
    assert content_of(uploaded) == [{"type": "file", "file": {"file_id": "file-1"}}]


def test_files_by_url() -> None:
    message = Message.user(file="https://a.test/b.pdf")
    expected = {"type": "file", "file": {"filename": "document.pdf", "file_data": "https://a.test/b.pdf"}}
    assert content_of(message, quirks=Quirks(file_urls=True)) == [expected]
    with pytest.raises(UnsupportedParameterError) as caught:
        content_of(message)
    assert str(caught.value) == (
        "acme takes no documents by URL through Chat Completions. Pass the path or the bytes instead."
    )
    assert caught.value.parameter == "file"


@pytest.mark.parametrize(("data", "kind"), [(WAV, "wav"), (MP3, "mp3"), (b"OggS rest", "ogg"), (b"fLaC rest", "flac")])
def test_sound(data: bytes, kind: str) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": b64(data), "format": kind}}
    assert content_of(Message.user(audio=data)) == [audio]


def test_sound_by_url_is_refused() -> None:
    with pytest.raises(InvalidPromptError, match="audio cannot be sent by URL"):
        content_of(Message.user(audio="https://a.test/b.wav"))


def test_tools() -> None:
    body = body_of(HI, tools=(ADD, NOP))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Adds.",
                "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
            },
        },
        {
            "type": "function",
            "function": {
                "name": "nop",
                "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
                "strict": True,
            },
        },
    ]
    assert "tool_choice" not in body


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_tool_choice_by_word(choice: str) -> None:
    assert body_of(HI, tools=(ADD,), params=SamplingParams(tool_choice=choice))["tool_choice"] == choice


def test_tool_choice_by_name() -> None:
    body = body_of(HI, tools=(ADD,), params=SamplingParams(tool_choice="add"))
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(("tools", "known"), [((ADD, NOP), "add, nop"), ((), "none")])
def test_tool_choice_of_no_tool(tools: tuple[Tool, ...], known: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body_of(HI, tools=tools, params=SamplingParams(tool_choice="sub"))
    assert str(caught.value) == f"tool_choice='sub' names no tool of the call. Its tools: {known}."


def test_tool_calls_and_results_go_back() -> None:
    calls = [
        {"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"a":  1}'}},
        {"index": 1, "id": "b", "function": {"name": "nop"}},
        {"index": 2, "id": "c", "custom": {"name": "sql", "input": "SELECT 1"}},
    ]
    answer = read(chunk({"reasoning": "hm", "tool_calls": calls}) + chunk({}, "tool_calls")).content
    conversation = Conversation.user("u").add(answer).tool_result("a", {"sum": "1 €"}).tool_result("b", "done")
    conversation.tool_result("c", "1 row")
    assert body_of(conversation)["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a":  1}'}},
                {"id": "b", "type": "function", "function": {"name": "nop", "arguments": "{}"}},
                {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": '{"sum": "1 €"}'},
        {"role": "tool", "tool_call_id": "b", "content": "done"},
        {"role": "tool", "tool_call_id": "c", "content": "1 row"},
    ]


def test_an_answer_of_text_refusal_or_nothing_goes_back() -> None:
    refusal = Message("assistant", (RefusalPart("No."),))
    thought = Message("assistant", (ReasoningPart("hm"),))
    sound = Message("assistant", (AudioPart(Media(media_type="audio/pcm", data=b"", file_id="audio_1"), "Hi"),))
    assert messages_of(Message.assistant("a"), refusal, thought, sound, Message.assistant()) == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "audio": {"id": "audio_1"}},
        {"role": "assistant", "content": ""},
    ]


def test_reasoning_details_go_back_to_their_provider_and_to_no_other() -> None:
    details = [{"type": "reasoning.encrypted", "data": "ZW5j", "index": 0}]
    for provider, expected in (("acme", details), ("other", None)):
        message = Message("assistant", (ProviderDataPart(provider, "reasoning_details", details),)).with_text("a")
        (sent,) = messages_of(message)
        assert sent.get("reasoning_details") == expected
        assert sent["content"] == "a"
    (sent,) = messages_of(Message("assistant", (ProviderDataPart("acme", "executed_tools", [1]),)))
    assert sent == {"role": "assistant", "content": ""}


MISPLACED: list[tuple[Message, str]] = [
    (Message.system("s").with_image(PNG), "Image is not allowed in a message of role system"),
    (Message.developer("s").with_file(PDF), "File is not allowed in a message of role developer"),
    (Message.user("u")._with(ToolCallPart("a", "f")), "ToolCall is not allowed in a message of role user"),
    (Message.user()._with(RefusalPart("no")), "Refusal is not allowed in a message of role user"),
    (Message.tool_result("a", "x").with_text("y"), "Text is not allowed in a message of role tool"),
]


@pytest.mark.parametrize(("message", "text"), MISPLACED, ids=lambda value: value if isinstance(value, str) else "")
def test_parts_in_the_wrong_message_are_refused(message: Message, text: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        messages_of(message)
    assert str(caught.value) == f"{text}. Put it into another message."
    assert caught.value.parameter == "prompt"


SAMPLING: dict[str, tuple[SamplingParams, dict[str, Any]]] = {
    "temperature": (SamplingParams(temperature=0), {"temperature": 0}),
    "top_p": (SamplingParams(top_p=0.5), {"top_p": 0.5}),
    "max_new_tokens": (SamplingParams(max_new_tokens=7), {"max_completion_tokens": 7}),
    "one stop": (SamplingParams(stop="END"), {"stop": ["END"]}),
    "several stops": (SamplingParams(stop=["a", "b"]), {"stop": ["a", "b"]}),
    "seed": (SamplingParams(seed=0), {"seed": 0}),
    "presence_penalty": (SamplingParams(presence_penalty=-2), {"presence_penalty": -2}),
    "frequency_penalty": (SamplingParams(frequency_penalty=2), {"frequency_penalty": 2}),
    "reasoning_effort": (SamplingParams(reasoning_effort="low"), {"reasoning_effort": "low"}),
    "json_mode": (SamplingParams(json_mode=True), {"response_format": {"type": "json_object"}}),
    "logprobs": (SamplingParams(logprobs=True), {"logprobs": True}),
    "top_logprobs": (SamplingParams(top_logprobs=0), {"logprobs": True, "top_logprobs": 0}),
    "parallel_tool_calls": (SamplingParams(parallel_tool_calls=False), {"parallel_tool_calls": False}),
    "service_tier": (SamplingParams(service_tier="flex"), {"service_tier": "flex"}),
    "verbosity": (SamplingParams(verbosity="low"), {"verbosity": "low"}),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling_parameters(name: str) -> None:
    params, expected = SAMPLING[name]
    body, plain = body_of(HI, params=params), body_of(HI)
    assert {key: value for key, value in body.items() if key not in plain} == expected


def test_every_sampling_parameter_is_tested() -> None:
    tested = {name.replace("one stop", "stop") for name in SAMPLING} | {"tool_choice"}
    assert set(SamplingParams.__struct_fields__) <= tested


CLOSED = {
    "type": "object",
    "title": "A point!",
    "properties": {"x": {"type": "integer"}, "y": {"$ref": "#/$defs/Y"}},
    "required": ["x", "y"],
    "additionalProperties": False,
    "$defs": {"Y": {"type": "object", "properties": {}, "additionalProperties": False}},
}
OPEN_SCHEMAS = {
    "open": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    "optional": {"type": "object", "properties": {"x": {}}, "additionalProperties": False},
    "nested": {"anyOf": [{"type": "array", "items": {"properties": {"x": {}}, "required": ["x"]}}]},
}


def test_a_schema_that_is_strict() -> None:
    assert body_of(HI, output=CLOSED)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "A_point_", "schema": CLOSED, "strict": True},
    }


@pytest.mark.parametrize("name", OPEN_SCHEMAS)
def test_a_schema_that_is_not_strict(name: str) -> None:
    schema = OPEN_SCHEMAS[name]
    assert body_of(HI, output=schema, params=SamplingParams(json_mode=True))["response_format"]["json_schema"] == {
        "name": "output",
        "schema": schema,
        "strict": False,
    }


def test_extra_body_and_headers_win() -> None:
    extra = {"temperature": 1, "provider": {"order": ["a"]}, "model": "m-2"}
    request = request_of(HI, extra_headers={"X-Title": "t", "Accept": "*/*"}, params=SamplingParams(temperature=0))
    assert request.headers == {"content-type": "application/json", "accept": "*/*", "x-title": "t"}
    body = body_of(HI, extra_body=extra, params=SamplingParams(temperature=0))
    assert {name: body[name] for name in extra} == extra


REFUSED: dict[str, tuple[dict[str, Any], Capabilities, str, str]] = {
    "temperature": (
        {"params": SamplingParams(temperature=0)},
        Capabilities(sampling=False),
        "temperature",
        "Leave it out, or take another model.",
    ),
    "logprobs": (
        {"params": SamplingParams(top_logprobs=1)},
        Capabilities(logprobs=False),
        "logprobs",
        "Leave it out, or take another model.",
    ),
    "effort of no reasoning model": (
        {"params": SamplingParams(reasoning_effort="low")},
        Capabilities(reasoning=False),
        "reasoning_effort='low'",
        "Leave it out, or take another model.",
    ),
    "unknown effort": (
        {"params": SamplingParams(reasoning_effort="none")},
        Capabilities(reasoning=True, reasoning_efforts=("low", "high")),
        "reasoning_effort='none'",
        "It takes: low, high.",
    ),
    "tools": ({"tools": (ADD,)}, Capabilities(tools=False), "tools", "Leave it out, or take another model."),
    "output": ({"output": CLOSED}, Capabilities(json_schema=False), "output", "Leave it out, or take another model."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_parameters_that_a_model_does_not_support_are_refused_by_name(name: str) -> None:
    fields, able, parameter, hint = REFUSED[name]
    with pytest.raises(UnsupportedParameterError) as caught:
        body_of(HI, capabilities=able, **fields)
    assert str(caught.value) == f"acme:m does not take {parameter}. {hint} To send it all the same, use extra_body."
    assert caught.value.parameter == parameter.partition("=")[0]


@pytest.mark.parametrize(
    ("message", "field"),
    [(Message.user(image=PNG), "image"), (Message.user(file=PDF), "file"), (Message.user(audio=WAV), "audio")],
    ids=["image", "file", "audio"],
)
def test_media_that_a_model_cannot_take(message: Message, field: str) -> None:
    able = Capabilities(**{f"{field}_input": False})
    with pytest.raises(UnsupportedParameterError, match=f"acme:m does not take {field}"):
        messages_of(message, capabilities=able)
    assert messages_of(Message.user("u"), capabilities=able)


@pytest.mark.parametrize("effort", ["low", "high"])
def test_an_effort_that_the_model_takes(effort: Any) -> None:
    able = Capabilities(reasoning=True, reasoning_efforts=("low", "high"))
    assert body_of(HI, capabilities=able, params=SamplingParams(reasoning_effort=effort))["reasoning_effort"] == effort


NOT_JSON: dict[str, Callable[[], dict[str, Any]]] = {
    "a lone surrogate in a text": lambda: body_of(Conversation.user("secret \ud800")),
    "an object in extra_body": lambda: body_of(HI, extra_body={"x": object()}),
    "an integer too large": lambda: body_of(HI, tools=(Tool(name="f", parameters={"maximum": 10**5_000}),)),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_values_that_json_cannot_encode(name: str) -> None:
    with pytest.raises(InvalidPromptError, match="the request cannot be encoded as JSON: ") as caught:
        NOT_JSON[name]()
    assert "secret" not in str(caught.value)


def test_a_part_that_is_an_image_by_url_needs_no_bytes() -> None:
    part = ImagePart(Media(url="https://a.test/b.png"))
    assert content_of(Message("user", (part,)))[0]["image_url"] == {"url": "https://a.test/b.png"}


def test_an_image_cannot_be_sent_by_its_file_id() -> None:
    with pytest.raises(InvalidPromptError, match="by its file id"):
        content_of(Message("user", (ImagePart(Media(file_id="file-1")),)))


def strict_tool(**properties: Any) -> Tool:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, **properties}, "required": ["city"]}
    return Tool(name="weather", parameters=schema, strict=True)


@pytest.mark.parametrize(
    ("optional", "sent"),
    [
        ({"type": "integer", "default": 3}, {"type": ["integer", "null"]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"type": "string", "enum": ["C", "F"]}, {"type": ["string", "null"], "enum": ["C", "F", None]}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, None),
        ({"$ref": "#/$defs/Unit"}, {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]}),
        ({"const": 1}, {"anyOf": [{"const": 1}, {"type": "null"}]}),
    ],
)
def test_an_optional_property_of_a_strict_tool_is_required_and_may_be_null(optional: Any, sent: Any) -> None:
    body = body_of(HI, tools=(strict_tool(unit=optional),))
    found = body["tools"][0]["function"]
    sent = sent or {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}
    assert found["strict"] is True
    assert found["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": sent},
        "required": ["city", "unit"],
        "additionalProperties": False,
    }
    assert is_strict(found["parameters"])


def test_optional_properties_inside_of_others_are_required_too() -> None:
    place = {"type": "object", "properties": {"name": {"type": "string"}}}
    found = body_of(HI, tools=(strict_tool(places={"type": "array", "items": place}),))["tools"][0]["function"]
    items = found["parameters"]["properties"]["places"]["items"]
    assert items == {
        "type": "object",
        "properties": {"name": {"type": ["string", "null"]}},
        "required": ["name"],
        "additionalProperties": False,
    }
    assert found["strict"] is True


def test_a_strict_tool_with_free_keys_is_sent_as_it_is_and_not_strict() -> None:
    tool = strict_tool(labels={"type": "object", "additionalProperties": {"type": "string"}})
    found = body_of(HI, tools=(tool,))["tools"][0]["function"]
    assert (found["parameters"], found["strict"]) == (tool.parameters, False)
