"""Parse requests of Chat Completions as the adapter builds them; errors have OpenAI's wording."""

from __future__ import annotations

import base64
import json

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.openai_chat.response import parse_request
from lm_deluge.errors import BadRequestError
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from lm_deluge.prompt.tool import Tool

PNG = b"\x89PNG\r\n\x1a\nrest"
WEATHER = Tool(name="weather", description="Weather", parameters={"type": "object", "properties": {}}, strict=False)


def body_of(conversation: Conversation, **options: object) -> bytes:
    row = ProviderRow(id="simulator", otel_name="simulator", adapter="openai-chat", base_url="")
    model = ModelRow(id="gpt-4o", name="gpt-4o", provider=row.id)
    return OpenAIChat().build_request(Call(model=model, provider=row, conversation=conversation, **options)).body


def request(**fields: object) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


def message(**fields: object) -> bytes:
    return request(messages=[fields])


def test_a_conversation_is_read_as_it_was_written() -> None:
    conversation = (
        Conversation()
        .system("Be short.")
        .developer("Be kind.")
        .user("Look:", image=PNG)
        .add(Message.assistant("I call.", tool_calls=[ToolCallPart("call_1", "weather", '{"a":1}', {"a": 1})]))
        .tool_result("call_1", "sunny")
        .add(Message("assistant", (RefusalPart("No."),)))
        .add(Message.user("And this?").with_file(b"%PDF-1", filename="paper.pdf").with_audio(b"ID3sound"))
        .add(Message("user", (TextPart("By name"),), "ann"))
    )
    assert parse_request(body_of(conversation)).conversation == conversation


def test_media_by_reference() -> None:
    conversation = Conversation.user("Look:", image="https://example.org/a.png").add(
        Message("assistant", (TextPart("So"), AudioPart(Media(file_id="audio_1"))))
    )
    assert parse_request(body_of(conversation)).conversation == conversation
    parsed = parse_request(message(role="user", content=[{"type": "file", "file": {"file_id": "file-1"}}]))
    assert parsed.conversation[0].parts[0].media == Media(file_id="file-1")


def test_options_are_read_as_they_were_written() -> None:
    params = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        max_new_tokens=20,
        stop=("END",),
        seed=7,
        presence_penalty=1,
        frequency_penalty=-1,
        reasoning_effort="low",
        logprobs=True,
        top_logprobs=3,
        tool_choice="weather",
        parallel_tool_calls=False,
        service_tier="flex",
        verbosity="low",
    )
    parsed = parse_request(body_of(Conversation.user("Hi"), params=params, tools=(WEATHER,)))
    assert (parsed.params, parsed.tools) == (params, (WEATHER,))
    assert (parsed.is_streamed, parsed.wants_usage) == (True, True)
    assert parse_request(request(max_tokens=9)).params.max_new_tokens == 9


def test_formats_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert parse_request(body_of(Conversation.user("Hi"), output=schema)).output == schema
    assert parse_request(body_of(Conversation.user("Hi"), params=SamplingParams(json_mode=True))).params.json_mode


def test_absent_and_null_fields_have_defaults() -> None:
    parsed = parse_request(request(stream=None, temperature=None, tools=None, stop=None, tool_choice=None))
    assert parsed.params == SamplingParams()
    assert (parsed.is_streamed, parsed.wants_usage, parsed.tools, parsed.output) == (False, False, (), None)
    assert parsed.raw["temperature"] is None


def test_fields_that_hosts_add_to_assistant_messages_are_kept() -> None:
    parsed = parse_request(
        message(
            role="assistant",
            content=[{"type": "text", "text": "So."}, {"type": "refusal", "refusal": "No."}],
            reasoning_content="hm",
            reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}],
        )
    )
    assert parsed.conversation[0].parts == (
        ReasoningPart("hm"),
        TextPart("So."),
        RefusalPart("No."),
        ProviderDataPart("openai-chat", "reasoning_details", [{"type": "reasoning.encrypted", "data": "x"}]),
    )


def test_a_call_of_the_model_is_never_repaired() -> None:
    calls = [
        {"id": "a", "function": {"name": "f", "arguments": '{"x"'}},
        {"id": "b", "function": {"name": "f", "arguments": ""}},
        {"id": "c", "type": "custom", "custom": {"name": "g", "input": "free"}},
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in calls]
    parsed = parse_request(request(messages=[{"role": "assistant", "tool_calls": calls}, *results]))
    broken, empty, custom = parsed.conversation[0].tool_calls
    assert (broken.arguments_text, broken.arguments) == ('{"x"', None)
    assert broken.arguments_error.startswith("the arguments are not JSON")
    assert empty.arguments == {}
    assert custom == ToolCallPart("c", "g", "free", custom=True)


def test_results_of_tools_may_come_in_pieces() -> None:
    pieces = [{"type": "text", "text": "sun"}, {"type": "text", "text": "ny"}]
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": pieces}
    parsed = parse_request(request(messages=[{"role": "assistant", "tool_calls": [call]}, result]))
    assert parsed.conversation[1] == Message.tool_result("call_1", "sunny")


def content(**piece: object) -> bytes:
    return message(role="user", content=[piece])


REFUSED = {
    "no JSON": (b"{", "We could not parse the JSON body"),
    "no UTF-8": (b'{"model": "\xff"}', "We could not parse the JSON body"),
    "a list": (b"[]", "Invalid type for 'body': expected an object, but got an array instead."),
    "no model": (b'{"messages": []}', "you must provide a model parameter"),
    "a model that is no text": (b'{"model": 4}', "you must provide a model parameter"),
    "no messages": (b'{"model": "m"}', "Missing required parameter: 'messages'."),
    "messages as text": (request(messages="Hi"), "Invalid type for 'messages': expected an array, but got a string"),
    "no message": (request(messages=[]), "Invalid 'messages': empty array."),
    "a text as message": (request(messages=["Hi"]), "Invalid type for 'messages[0]': expected an object"),
    "no role": (message(content="Hi"), "Missing required parameter: 'messages[0].role'."),
    "another role": (message(role="judge", content="Hi"), "Invalid value: 'judge' for 'messages[0].role'. Supported"),
    "no content": (message(role="user"), "Missing required parameter: 'messages[0].content'."),
    "content as number": (message(role="user", content=3), "Invalid type for 'messages[0].content': expected a string"),
    "a piece as text": (message(role="user", content=["Hi"]), "Invalid type for 'messages[0].content[0]'"),
    "an unknown piece": (content(type="video"), "Invalid value: 'video' for 'messages[0].content[0].type'."),
    "an image for the system": (
        message(role="system", content=[{"type": "image_url", "image_url": {"url": "https://example.org"}}]),
        "Invalid value: 'image_url'",
    ),
    "a path as image": (content(type="image_url", image_url={"url": "/etc/hosts"}), "expected an http(s) or data URL"),
    "no image": (
        content(type="image_url", image_url={"url": "data:image/png;base64,AAAA"}),
        "these bytes are no image",
    ),
    "a path as file": (content(type="file", file={"file_data": "/etc/hosts"}), "expected a data URL"),
    "no base64": (content(type="input_audio", input_audio={"data": "!"}), "expected base64 text"),
    "no audio": (
        content(type="input_audio", input_audio={"data": base64.b64encode(b"x").decode()}),
        "these bytes are no audio",
    ),
    "no id of the call": (message(role="tool", content="x"), "Missing required parameter: 'messages[0].tool_call_id'."),
    "a call as text": (message(role="assistant", tool_calls=["f"]), "Invalid type for 'messages[0].tool_calls[0]'"),
    "stream as text": (request(stream="yes"), "Invalid type for 'stream': expected a boolean, but got a string"),
    "true as number": (request(max_tokens=True), "Invalid type for 'max_tokens': expected an integer, but got a bool"),
    "a number out of range": (request(temperature=3), "temperature=3 is not a number between 0 and 2"),
    "stop as number": (request(stop=3), "Invalid type for 'stop': expected an array"),
    "a tool as text": (request(tools=["f"]), "Invalid type for 'tools[0]'"),
    "a tool without a type": (request(tools=[{"name": "f"}]), "Missing required parameter: 'tools[0].type'."),
    "a tool without name": (
        request(tools=[{"type": "function", "function": {}}]),
        "Missing required parameter: 'tools[0].function.name'.",
    ),
    "no name for a tool": (
        request(tools=[{"type": "function", "function": {"name": "a b"}}]),
        "is not a valid tool name",
    ),
    "a choice as number": (request(tool_choice=3), "Invalid type for 'tool_choice'"),
}


@pytest.mark.parametrize(("body", "words"), REFUSED.values(), ids=REFUSED)
def test_malformed_requests_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_request(body)
    assert words in caught.value.message
    assert (caught.value.status_code, caught.value.type) == (400, "invalid_request_error")
