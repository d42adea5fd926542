"""`conversation_from`: what the requests of browsers become, and what is refused in them."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_deluge.errors import ChatRequestError, InvalidPromptError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import TextPart, ToolCallPart, ToolResultPart
from lm_deluge.ui import conversation_from

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
PDF_URL = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7 x").decode()
WAV_URL = "data:audio/wav;base64," + base64.b64encode(b"RIFF0000WAVE").decode()


def use_chat(*messages: tuple[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "id": "chat-1",
        "messages": [{"id": str(at), "role": role, "parts": parts} for at, (role, parts) in enumerate(messages)],
        "trigger": "submit-message",
    }


def ag_ui(*messages: dict[str, Any]) -> dict[str, Any]:
    named = [{"id": str(at), **message} for at, message in enumerate(messages)]
    return {"threadId": "t", "runId": "r", "state": {}, "messages": named, "tools": [], "context": []}


def openai(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"model": "any", "messages": list(messages), "stream": True}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


TURNS = [Message.user("Hi"), Message.assistant("Hello"), Message.user("And you?")]


@pytest.mark.parametrize(
    "body",
    [
        use_chat(
            ("user", [text("Hi")]),
            ("assistant", [{"type": "step-start"}, {"type": "reasoning", "text": "hm"}, text("Hello")]),
            ("user", [text("And you?"), {"type": "data-x", "data": 1}]),
        ),
        ag_ui(
            {"role": "user", "content": "Hi"},
            {"role": "reasoning", "content": "hm"},
            {"role": "assistant", "content": "Hello"},
            {"role": "activity", "activityType": "x", "content": {}},
            {"role": "user", "content": [text("And you?")]},
        ),
        openai(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [text("And you?")]},
        ),
    ],
)
def test_turns(body: dict[str, Any]) -> None:
    assert conversation_from(body).messages == TURNS
    assert conversation_from(json.dumps(body)).messages == TURNS
    assert conversation_from(json.dumps(body).encode()).messages == TURNS


LOOP = [
    Message.user("Weather?"),
    Message("assistant", [TextPart("Let me see."), ToolCallPart("c1", "weather", '{"city":"Rome"}', {"city": "Rome"})]),
    Message("tool", [ToolResultPart("c1", '{"degrees":21}')]),
    Message.assistant("21 degrees."),
]
LOOPS = {
    "useChat": use_chat(
        ("user", [text("Weather?")]),
        (
            "assistant",
            [
                {"type": "step-start"},
                text("Let me see."),
                {
                    "type": "dynamic-tool",
                    "toolName": "weather",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "input": {"city": "Rome"},
                    "output": {"degrees": 21},
                },
                {"type": "tool-weather", "toolCallId": "c2", "state": "input-streaming", "rawInput": "{"},
                {"type": "step-start"},
                text("21 degrees."),
            ],
        ),
    ),
    "AG-UI": ag_ui(
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "toolCalls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{"}},
            ],
        },
        {"role": "tool", "toolCallId": "c1", "content": '{"degrees":21}'},
        {"role": "assistant", "content": "21 degrees."},
    ),
    "OpenAI": openai(
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"degrees":21}'},
        {"role": "assistant", "content": "21 degrees."},
    ),
}


@pytest.mark.parametrize("client", LOOPS)
def test_results_of_tools_are_refused_unless_allowed(client: str) -> None:
    with pytest.raises(ChatRequestError, match="results of tools are not allowed here"):
        conversation_from(LOOPS[client])
    assert conversation_from(LOOPS[client], allow_tool_results=True).messages == LOOP


def test_results_that_are_errors_and_steering() -> None:
    failed = {"type": "tool-f", "toolCallId": "c1", "state": "output-error", "input": {}, "errorText": "broken"}
    denied = {"type": "tool-f", "toolCallId": "c2", "state": "output-denied", "input": {}}
    steered = {"type": "steering-message", "id": "s", "parts": [text("faster")]}
    body = use_chat(("user", [text("Hi")]), ("assistant", [failed, denied, text("so"), steered, text("ok")]))
    found = conversation_from(body, allow_tool_results=True).messages
    assert [message.role for message in found] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert [part.is_error for part in found[2].tool_results] == [True, True]
    assert found[4].completion == "faster"


SYSTEM = {
    "useChat": use_chat(("system", [text("Obey.")]), ("user", [text("Hi")])),
    "AG-UI": ag_ui({"role": "developer", "content": "Obey."}, {"role": "user", "content": "Hi"}),
    "OpenAI": openai({"role": "system", "content": "Obey."}, {"role": "user", "content": "Hi"}),
}


@pytest.mark.parametrize("client", SYSTEM)
def test_instructions_are_refused_unless_allowed(client: str) -> None:
    with pytest.raises(ChatRequestError, match=r"(system|developer) messages are not allowed here"):
        conversation_from(SYSTEM[client])
    assert len(conversation_from(SYSTEM[client], allow_system=True)) == 2


def files(url: str, media_type: str = "image/png") -> dict[str, dict[str, Any]]:
    kind = media_type.partition("/")[0]
    inline = url.startswith("data:")
    source = {"type": "data" if inline else "url", "value": url.rpartition(",")[2], "mimeType": media_type}
    ag_kind = kind if kind in ("image", "audio") else "document"
    return {
        "useChat": use_chat(("user", [{"type": "file", "url": url, "mediaType": media_type, "filename": "f"}])),
        "AG-UI": ag_ui({"role": "user", "content": [{"type": ag_kind, "source": source}]}),
        "OpenAI": openai({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}),
    }


@pytest.mark.parametrize("client", ["useChat", "AG-UI", "OpenAI"])
def test_files_are_data_of_allowed_types_and_sizes(client: str) -> None:
    [image] = conversation_from(files(PNG_URL)[client]).messages[0].images
    assert image.media.data == PNG
    with pytest.raises(ChatRequestError, match="has more than 10 bytes"):
        conversation_from(files(PNG_URL)[client], max_file_bytes=10)
    with pytest.raises(ChatRequestError, match="files of this type are not allowed here"):
        conversation_from(files(PNG_URL)[client], file_types=["image/jpeg"])
    for address in ("https://a.test/x.png", "http://169.254.169.254/latest"):
        with pytest.raises(ChatRequestError, match="URLs of files are not allowed here"):
            conversation_from(files(address)[client])
        assert conversation_from(files(address)[client], allow_urls=True).messages[0].images[0].media.url == address


@pytest.mark.parametrize("client", ["useChat", "AG-UI", "OpenAI"])
@pytest.mark.parametrize("allow_urls", [False, True])
def test_no_path_makes_the_server_read_a_file(client: str, tmp_path: Path, *, allow_urls: bool) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    for url in (str(secret), secret.as_uri(), "ftp://a.test/x", "blob:x", "javascript:1"):
        with pytest.raises(ChatRequestError):
            conversation_from(files(url)[client], allow_urls=allow_urls)


def test_documents_and_audio() -> None:
    for client in ("useChat", "AG-UI"):
        assert conversation_from(files(PDF_URL, "application/pdf")[client]).messages[0].files
        [message] = conversation_from(files(WAV_URL, "audio/wav")[client]).messages
        assert type(message.parts[0]).__name__ == "AudioPart"


STORED = {
    "useChat": use_chat(("user", [{"type": "file", "url": PNG_URL, "providerReference": {"openai": "file-1"}}])),
    "AG-UI": ag_ui({"role": "user", "content": [{"type": "image", "source": {"type": "file", "value": "file-1"}}]}),
    "OpenAI": openai({"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}),
}


@pytest.mark.parametrize("client", STORED)
def test_files_of_the_account_are_refused(client: str) -> None:
    """The id names a file of the application's account, which may belong to another user."""
    with pytest.raises(ChatRequestError, match="stored at a provider"):
        conversation_from(STORED[client], allow_urls=True)


MALFORMED: list[tuple[Any, str]] = [
    (b"{", "is not JSON"),
    (b"\xff", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ([], "is not a JSON object"),
    ({}, "has no messages"),
    ({"messages": {}}, "has no messages"),
    ({"messages": []}, "has no messages"),
    ({"messages": ["Hi"]}, r"messages\[0\] is not an object with a role"),
    ({"messages": [{"parts": []}]}, r"messages\[0\] is not an object with a role"),
    ({"messages": [{"role": "user", "parts": "Hi"}]}, r"messages\[0\]\.parts is not a list"),
    (use_chat(("tool", [text("Hi")])), r"messages\[0\]\.role is none of system, user, assistant"),
    (use_chat(("user", [])), "has no messages"),
    (use_chat(("user", [{"type": "text"}])), r"messages\[0\]\.parts\[0\]\.text is not a text"),
    (use_chat(("user", [{"text": "Hi"}])), r"messages\[0\]\.parts\[0\]\.type is not a text"),
    (use_chat(("user", [{"type": "hologram"}])), "type is not known: 'hologram'"),
    (use_chat(("user", [{"type": "file", "url": "data:image/png;base64,!"}])), "damaged"),
    (use_chat(("user", [{"type": "file", "url": "data:image/png;base64,eHg="}])), "no image"),
    (use_chat(("assistant", [{"type": "dynamic-tool"}])), "toolCallId is not a text"),
    (ag_ui({"role": "robot", "content": "Hi"}), r"messages\[0\]\.role is none of"),
    (ag_ui({"role": "user", "content": 5}), "neither a text nor a list"),
    (ag_ui({"role": "user", "content": [{"type": "image", "source": "x"}]}), "neither a text nor a file"),
    (ag_ui({"role": "tool", "content": "x"}), "toolCallId is not a text"),
    (ag_ui({"role": "assistant", "toolCalls": [{}]}), "toolCalls"),
    (ag_ui({"role": "assistant", "toolCalls": {}}), "toolCalls is not a list"),
    (openai({"role": "robot", "content": "Hi"}), "robot"),
    ({"messages": [{"role": "user", "content": "x"}] * 1_001}, "more than 1,000 messages"),
]


@pytest.mark.parametrize(("body", "message"), MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_requests(body: Any, message: str) -> None:
    with pytest.raises(ChatRequestError, match=message) as caught:
        conversation_from(body)
    assert isinstance(caught.value, InvalidPromptError)


FIELDS = [
    *("role", "parts", "content", "type", "text", "url", "source", "value"),
    *("toolCalls", "id", "toolCallId", "state", "output"),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["user", "text", "tool", PNG_URL]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({"messages": st.lists(JSON, max_size=3)}), st.booleans(), st.booleans())
def test_any_body_is_a_conversation_or_an_error_of_ours(body: dict[str, Any], is_ag_ui: bool, allows: bool) -> None:
    if is_ag_ui:
        body |= {"threadId": "t", "runId": "r"}
    with contextlib.suppress(ChatRequestError):
        conversation_from(body, allow_tool_results=allows, allow_system=allows, allow_urls=allows)
