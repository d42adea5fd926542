"""What every wire API makes of text files, tool results, open tool calls and strict tools."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import BadRequestError, InvalidPromptError, UnsupportedParameterError
from lm_deluge.models.rows import Capabilities
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.prompt.tool import Tool
from samples.api_calls import call_of

APIS = adapter_names()
# The native API of Bedrock has the format of each vendor.
PLACES = [(api, "m-1") for api in APIS] + [
    ("bedrock-invoke", "anthropic.claude-opus-4-5"),
    ("bedrock-invoke", "amazon.nova-pro-v1:0"),
    ("bedrock-invoke", "meta.llama3-8b-instruct-v1:0"),
    ("bedrock-invoke", "mistral.mistral-7b-instruct-v0:2"),
    ("bedrock-invoke", "amazon.titan-text-express-v1"),
    ("bedrock-invoke", "cohere.command-r-v1:0"),
    ("gemini-generate", "gemini-3-pro"),
    ("gemini-generate", "gemini-2.5-pro"),
]
WITH_TOOLS = [
    each for each in PLACES if each[1].split(".")[0] not in ("meta", "mistral", "cohere") and "titan" not in each[1]
]
TEXT = "größe = 1"
PNG = b"\x89PNG\r\n\x1a\n"
CALL = ToolCallPart("abcDEF123", "weather", '{"city":"Rome"}', {"city": "Rome"})
TOOL = Tool(name="weather")


def body_of(place: tuple[str, str], conversation: Conversation, **fields: Any) -> bytes:
    api, name = place
    capabilities = Capabilities(**fields.pop("able", {}))
    call = call_of(api, conversation, capabilities=capabilities, **fields)
    call = msgspec.structs.replace(call, model=msgspec.structs.replace(call.model, name=name))
    return find_adapter(api).build_request(call).body


def read(place: tuple[str, str], body: bytes) -> Conversation:
    """Return the conversation that the simulator reads: it refuses what the provider refuses."""
    return find_encoder(place[0]).parse_request(body, model=place[1], is_streamed=True).conversation


def holds(body: bytes, text: str) -> bool:
    """Whether the text is in a JSON body, itself or as base64."""
    plain = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    return plain in body or base64.b64encode(text.encode()) in body


def asked() -> Conversation:
    return Conversation.user("Weather?").add(Message.assistant(tool_calls=[CALL]))


@pytest.mark.parametrize("able", [{}, {"file_input": False}], ids=["files", "no files"])
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("name", ["main.py", "a.txt", "a.md", "a.csv", "a.json", "a.html", "server.log", "Makefile"])
def test_a_text_file_reaches_the_model(name: str, place: tuple[str, str], able: dict[str, bool]) -> None:
    message = Message.user("Explain this:").with_file(TEXT.encode(), filename=name).with_text("Be brief.")
    body = body_of(place, Conversation([message]), able=able)
    assert holds(body, TEXT)
    assert b"octet-stream" not in body
    assert all(holds(body, text) for text in ("Explain this:", "Be brief."))
    if not holds(body, TEXT) or able:  # inline: the model gets the name as well
        assert json.dumps(f'<file name="{name}">')[1:-1].encode() in body
    read(place, body)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_text_file_without_a_name(place: tuple[str, str]) -> None:
    body = body_of(place, Conversation([Message.user(file=TEXT.encode())]))
    assert holds(body, TEXT)
    assert b"pdf" not in body
    read(place, body)


def test_inline_text_stands_apart() -> None:
    message = Message.user("Compare:").with_file(b"1", filename="a.py").with_file(b"2", filename='b".py').with_text("!")
    content = json.loads(body_of(("openai-chat", "m"), Conversation([message])))["messages"][0]["content"]
    texts = [piece["text"] for piece in content]
    assert "".join(texts) == ('Compare:\n\n<file name="a.py">\n1\n</file>\n\n<file name="b\'.py">\n2\n</file>\n\n!')


def test_a_pdf_stays_a_file() -> None:
    body = body_of(("openai-chat", "m"), Conversation([Message.user("Read").with_file(b"%PDF-1", filename="a.pdf")]))
    assert json.loads(body)["messages"][0]["content"][1]["file"]["file_data"].startswith("data:application/pdf;")


def test_the_simulator_refuses_other_files_as_openai_and_anthropic_do() -> None:
    data = base64.b64encode(b"a").decode()
    piece = {"type": "file", "file": {"file_data": f"data:text/plain;base64,{data}", "filename": "a.txt"}}
    chat = {"model": "m", "messages": [{"role": "user", "content": [piece]}]}
    with pytest.raises(BadRequestError, match="application/pdf MIME type, but got unsupported MIME type 'text/plain'"):
        find_encoder("openai-chat").parse_request(json.dumps(chat).encode())
    block = {"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": data}}
    messages = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
    with pytest.raises(BadRequestError, match=r"source.base64.media_type: Input should be 'application/pdf'"):
        find_encoder("anthropic-messages").parse_request(json.dumps(messages).encode())


@pytest.mark.parametrize("place", WITH_TOOLS, ids=str)
def test_a_failure_of_a_tool(place: tuple[str, str]) -> None:
    bodies = [
        body_of(place, asked().tool_result(CALL.id, "The city is unknown.", is_error=failed), tools=(TOOL,))
        for failed in (True, False)
    ]
    failed, succeeded = [read(place, body)[2].parts[0] for body in bodies]
    assert bodies[0] != bodies[1]
    assert failed.is_error or failed.content == "Error: The city is unknown."  # type: ignore[union-attr]
    assert (succeeded.is_error, succeeded.content) == (False, "The city is unknown.")  # type: ignore[union-attr]


@pytest.mark.parametrize("place", WITH_TOOLS, ids=str)
def test_images_of_a_tool(place: tuple[str, str]) -> None:
    calls = [CALL, ToolCallPart("second123", "weather", "{}", {})]
    conversation = Conversation.user("Weather?").add(Message.assistant(tool_calls=calls))
    conversation.tool_result(CALL.id, "A map.", images=PNG).tool_result("second123", "Sun.").user("Well?")
    body = body_of(place, conversation, tools=(TOOL,))
    assert body.count(base64.b64encode(PNG)) == 1
    found = read(place, body)  # the results follow their calls directly
    assert [part.content for message in found for part in message.parts if hasattr(part, "tool_call_id")] == [
        "A map.",
        "Sun.",
    ]
    assert found[-1].completion.endswith("Well?")


def test_images_of_a_tool_follow_in_a_user_message() -> None:
    conversation = asked().tool_result(CALL.id, "A map.", images=PNG)
    result, media = json.loads(body_of(("openai-chat", "m"), conversation))["messages"][2:]
    assert result == {"role": "tool", "tool_call_id": CALL.id, "content": "A map."}
    assert media["role"] == "user"
    assert [piece["type"] for piece in media["content"]] == ["text", "image_url"]
    assert media["content"][0]["text"] == f"Media of the result of tool call {CALL.id}:"


def test_a_model_that_takes_no_images_takes_none_of_a_tool() -> None:
    conversation = asked().tool_result(CALL.id, "A map.", images=PNG)
    with pytest.raises(UnsupportedParameterError, match="does not take image"):
        body_of(("openai-chat", "m"), conversation, able={"image_input": False})


REFUSING = [each for each in WITH_TOOLS if each[0] != "ollama-chat"]


@pytest.mark.parametrize("place", REFUSING, ids=str)
@pytest.mark.parametrize("after", [(), ("go on",)], ids=["at the end", "before a user message"])
def test_an_open_call_is_refused_by_name(place: tuple[str, str], after: tuple[str, ...]) -> None:
    conversation = asked()
    for text in after:
        conversation.user(text)
    with pytest.raises(InvalidPromptError, match=r"tool calls without a result .*'weather'") as caught:
        body_of(place, conversation, tools=(TOOL,))
    assert "conversation.add_answer(response)" in str(caught.value)


@pytest.mark.parametrize("place", REFUSING, ids=str)
def test_one_open_call_of_two_is_refused(place: tuple[str, str]) -> None:
    calls = [CALL, ToolCallPart("second123", "clock", "{}", {})]
    conversation = Conversation.user("a").add(Message.assistant(tool_calls=calls)).tool_result(CALL.id, "1")
    with pytest.raises(InvalidPromptError, match=r"without a result [a-z ]*: 'clock'"):
        body_of(place, conversation.user("b"), tools=(TOOL,))


def test_ollama_takes_an_open_call() -> None:
    assert b"weather" in body_of(("ollama-chat", "m"), asked().user("go on"), tools=(TOOL,))


@pytest.mark.parametrize(
    ("api", "field"),
    [
        ("openai-responses", "previous_response_id"),
        ("openai-responses", "conversation"),
        ("gemini-interactions", "previous_interaction_id"),
    ],
)
def test_what_the_provider_has_stored_is_not_looked_for(api: str, field: str) -> None:
    conversation = Conversation([Message.tool_result(CALL.id, "sun"), Message.assistant(tool_calls=[CALL])])
    body = body_of((api, "m"), conversation, extra_body={field: "id-1"})
    assert len(read((api, "m"), body)) == 2


def without_results(api: str, body: bytes) -> bytes:
    """Return a request without its tool results."""
    raw = json.loads(body)
    name = {"gemini-generate": "contents", "openai-responses": "input", "gemini-interactions": "input"}.get(
        api, "messages"
    )
    raw[name] = [
        message for message in raw[name] if CALL.id not in json.dumps(message) or "city" in json.dumps(message)
    ]
    return json.dumps(raw).encode()


WORDS = {
    "anthropic-messages": "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: abc",
    "bedrock-converse": "Expected toolResult blocks at messages.2.content for the following Ids: abcDEF123",
    "bedrock-invoke": "An assistant message with 'tool_calls' must be followed by tool messages",
    "cohere-v2": "An assistant message with 'tool_calls' must be followed by tool messages",
    "gemini-generate": "the number of function response parts is equal to the number of function call parts",
    "gemini-interactions": "the function_call of abcDEF123 has no function_result",
    "mistral-chat": "Not the same number of function calls and responses",
    "openai-chat": "The following tool_call_ids did not have response messages: abcDEF123",
    "openai-responses": "No tool output found for function call abcDEF123",
}
ORPHANED = {
    "anthropic-messages": "messages.0.content: unexpected `tool_use_id` found in `tool_result` blocks: abcDEF123",
    "bedrock-converse": "number of toolResult blocks at messages.0.content exceeds the number of toolUse blocks",
    "bedrock-invoke": "messages with role 'tool' must be a response",
    "cohere-v2": "messages with role 'tool' must be a response",
    "gemini-interactions": "the function_result of abcDEF123 has no function_call",
    "mistral-chat": "Unexpected tool call id abcDEF123 in tool results",
    "openai-chat": "messages with role 'tool' must be a response",
    "openai-responses": "No tool call found for function call output with call_id abcDEF123",
}


@pytest.mark.parametrize("api", WORDS)
def test_the_simulator_refuses_an_open_call(api: str) -> None:
    place = (api, "m-1")
    body = body_of(place, asked().tool_result(CALL.id, "sun"), tools=(TOOL,))
    read(place, body)
    with pytest.raises(BadRequestError) as caught:
        read(place, without_results(api, body))
    assert WORDS[api] in caught.value.message
    assert caught.value.status_code == 400


@pytest.mark.parametrize("api", ORPHANED)
def test_the_simulator_refuses_a_result_of_no_call(api: str) -> None:
    place = (api, "m-1")
    body = body_of(place, Conversation([Message.tool_result(CALL.id, "sun")]), tools=(TOOL,))
    with pytest.raises(BadRequestError) as caught:
        read(place, body)
    assert ORPHANED[api] in caught.value.message


OPEN = {
    "type": "object",
    "properties": {"at": {"type": "object", "properties": {}}, "kind": {"enum": [{"type": "object"}]}},
}
CLOSED = {
    "type": "object",
    "properties": {
        "at": {"type": "object", "properties": {}, "additionalProperties": False},
        "kind": {"enum": [{"type": "object"}]},
    },
    "additionalProperties": False,
}


# OpenAI refuses strict tools with optional properties.
REQUIRED = {
    "type": "object",
    "properties": {
        "at": {"type": ["object", "null"], "properties": {}, "additionalProperties": False},
        "kind": {"anyOf": [{"enum": [{"type": "object"}]}, {"type": "null"}]},
    },
    "additionalProperties": False,
    "required": ["at", "kind"],
}


@pytest.mark.parametrize("strict", [True, False, None])
@pytest.mark.parametrize("place", WITH_TOOLS, ids=str)
def test_the_schema_of_a_strict_tool_is_closed(place: tuple[str, str], strict: bool | None) -> None:
    body = body_of(place, Conversation.user("Hi"), tools=(Tool(name="f", parameters=OPEN, strict=strict),))
    is_openai = place[0] in ("openai-chat", "openai-responses") or place == ("bedrock-invoke", "m-1")
    expected = (REQUIRED if is_openai else CLOSED) if strict else OPEN
    assert json.dumps(expected, separators=(",", ":")).encode() in body


CLAUDE = [
    ("anthropic-messages", "claude-x"),
    ("bedrock-converse", "anthropic.claude-x"),
    ("bedrock-invoke", "anthropic.claude-x"),
]


@pytest.mark.parametrize("place", [*CLAUDE, ("openai-chat", "m")], ids=str)
def test_a_prefill_is_refused_where_the_model_has_none(place: tuple[str, str]) -> None:
    conversation = Conversation.user("A poem.").assistant("Roses are")
    with pytest.raises(UnsupportedParameterError, match="does not continue a last message") as caught:
        body_of(place, conversation, able={"prefill": False})
    assert caught.value.parameter == "prefill"
    for able in ({"prefill": True}, {"prefill": None}):
        assert b"Roses are" in body_of(place, conversation, able=able)
    assert b"Roses are" in body_of(place, conversation.user("Go on."), able={"prefill": False})
