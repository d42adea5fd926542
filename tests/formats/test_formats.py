"""Conversations as messages of the providers' own libraries, and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge import Conversation, Message
from lm_deluge.errors import ConfigurationError, InvalidPromptError, UnknownModelError, UnsupportedParameterError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import (
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

PNG = b"\x89PNG\r\n\x1a\n rest"
PDF = b"%PDF-1.7 rest"
CALL = ToolCallPart("c1", "look", '{"a":1}', {"a": 1})


def chat(*answer: Any) -> Conversation:
    """Return a conversation with everything that all formats have, and an answer with more."""
    return (
        Conversation.system("Be brief.")
        .user("What is this?", image=PNG, file=PDF)
        .add(Message("assistant", [TextPart("Let me look."), *answer, CALL]))
        .tool_result("c1", "a cat")
        .assistant("A cat.")
        .user("Thanks")
    )


def test_openai_there_and_back() -> None:
    conversation = chat()
    messages = conversation.to_openai()
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert messages[2]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"a":1}'}
    assert messages[3] == {"role": "tool", "tool_call_id": "c1", "content": "a cat"}
    again = Conversation.from_openai(messages)
    assert again[1].files[0].media.filename == "document.pdf"  # the format requires a name
    assert [message.parts[0] for message in again] == [message.parts[0] for message in conversation]
    assert again.to_openai() == messages
    assert Conversation.from_openai_chat(messages) == again


def test_anthropic_there_and_back() -> None:
    signed = (ReasoningPart("Hm."), ProviderDataPart("anthropic", "signature", "c2ln"))
    conversation = chat(*signed)
    system, messages = conversation.to_anthropic()
    assert system == "Be brief."
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[1]["content"][1] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    assert Conversation.from_anthropic(messages, system=system) == conversation
    assert Conversation.user("a").to_anthropic() == (None, [{"role": "user", "content": "a"}])


def test_the_mark_of_a_cached_part() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    system, messages = chat().to_anthropic("system_and_tools")
    assert system == [{"type": "text", "text": "Be brief.", **mark}]
    assert "cache_control" not in str(messages)
    with pytest.raises(ConfigurationError, match="there is no cache_pattern 'all'"):
        chat().to_anthropic("all")


def test_openai_responses_there_and_back() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
    item["encrypted_content"] = "c2ln"
    conversation = chat(ReasoningPart("Hm."), ProviderDataPart("openai", "reasoning", item))
    body = conversation.to_openai_responses()
    assert list(body) == ["input"]
    assert item in body["input"]
    again = Conversation.from_openai_responses(body["input"])
    assert again[2] == conversation[2]
    assert again.to_openai_responses() == body
    (system, _) = Conversation.from_openai_responses([{"role": "user", "content": "a"}], instructions="Be brief.")
    assert system == Message.system("Be brief.")


def test_gemini_and_mistral() -> None:
    instruction, contents = chat().to_gemini()
    assert instruction == "Be brief."
    assert [content["role"] for content in contents] == ["user", "model", "user", "model", "user"]
    assert contents[1]["parts"][1]["functionCall"]["args"] == {"a": 1}
    assert Conversation.user("a").to_gemini() == (None, [{"role": "user", "parts": [{"text": "a"}]}])
    messages = chat().to_mistral()
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert messages[2]["tool_calls"][0]["id"] == messages[3]["tool_call_id"]


def test_open_calls_are_converted() -> None:
    """The program that gets the messages can still answer them."""
    waiting = Conversation.user("a").add(Message("assistant", [CALL]))
    assert Conversation.from_openai(waiting.to_openai()) == waiting
    assert Conversation.from_anthropic(waiting.to_anthropic()[1]) == waiting
    assert Conversation.from_openai_responses(waiting.to_openai_responses()["input"]) == waiting
    assert len(waiting.to_mistral()) == len(waiting.to_gemini()[1]) == 2


def test_opaque_data_goes_back_to_its_own_provider_only() -> None:
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}]
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_details": details}]
    conversation = Conversation.from_openai(messages, provider="openrouter")
    assert conversation[1].parts[-1] == ProviderDataPart("openrouter", "reasoning_details", details)
    assert conversation.to_openai(provider="openrouter")[1]["reasoning_details"] == details
    assert conversation.to_openai()[1] == {"role": "assistant", "content": "b"}
    with pytest.raises(UnknownModelError):
        conversation.to_openai(provider="nobody")


def test_files_of_text_are_sent_as_the_calls_send_them() -> None:
    conversation = Conversation.user("Sum it up.", file=b"a,b\n1,2\n")
    assert "<file>" in str(conversation.to_openai())
    assert conversation.to_anthropic()[1][0]["content"][1]["source"]["type"] == "text"


def test_what_a_format_does_not_have_is_an_error() -> None:
    with pytest.raises(UnsupportedParameterError, match="audio"):
        Conversation.user("a", audio=b"ID3").to_anthropic()
    with pytest.raises(ConfigurationError, match="an image cannot be sent by its file id"):
        Conversation([Message("user", [ImagePart(Media(file_id="f"))])]).to_openai()


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}], r"'robot' for 'messages\[1\].role'"),
        ([{"content": "a"}], r"'messages\[0\].role'"),
        ([{"role": "user"}], r"'messages\[0\].content'"),
        (["hello"], r"'messages\[0\]': expected an object, but got a string"),
        ([{"role": "user", "content": [{"type": "video_url"}]}], r"'video_url' for 'messages\[0\].content\[0\].type'"),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}], r"'messages\[0\].tool_calls\[0\].function'"),
        ([{"role": "tool", "content": "a"}], r"'messages\[0\].tool_call_id'"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]}],
            r"messages\[0\]: these bytes are no image",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}],
            r"messages\[0\].content\[0\].image_url.url",
        ),
        ("hello", "messages are a list of dicts, not str"),
        ({"role": "user"}, "messages are a list of dicts, not dict"),
        (5, "messages are a list of dicts, not int"),
    ],
)
def test_unknown_forms_of_openai_are_named_with_their_place(messages: Any, complaint: str) -> None:
    with pytest.raises(InvalidPromptError, match=complaint):
        Conversation.from_openai(messages)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}], r"messages.1.role: .*'user'"),
        ([{"role": "user"}], r"messages.0.content: Field required"),
        (["hello"], r"messages.0: .*dictionary"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], r"messages.0.content.0.type is 'image_url'"),
        ([{"role": "assistant", "content": [{"type": "tool_use"}]}], r"messages.0.content.0.input: Field required"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], r"messages.0.content.0.text"),
    ],
)
def test_unknown_forms_of_anthropic_are_named_with_their_place(messages: Any, complaint: str) -> None:
    with pytest.raises(InvalidPromptError, match=complaint):
        Conversation.from_anthropic(messages)


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ([{"role": "user", "content": "a"}, {"type": "hologram"}], r"input\[1\].type is 'hologram'"),
        ([{"type": "function_call", "name": "f"}], r"'input\[0\].call_id'"),
        ([5], r"'input\[0\]': expected an object"),
    ],
)
def test_unknown_items_of_responses_are_named_with_their_place(items: Any, complaint: str) -> None:
    with pytest.raises(InvalidPromptError, match=complaint):
        Conversation.from_openai_responses(items)


def test_unknown_formats() -> None:
    conversation = chat()
    system, anthropic = conversation.to_anthropic()
    for messages, given_system, name in [
        (conversation.to_openai(), None, "openai"),
        ([{"role": "user", "content": "a"}], None, "openai"),
        (anthropic, system, "anthropic"),
        (anthropic, None, "anthropic"),
        ({"system": system, "messages": anthropic}, None, "anthropic"),
        (conversation.to_openai_responses()["input"], None, "openai-responses"),
        (conversation.to_log(), None, "log"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "content": "hm"}]}]}, None, "log"),
    ]:
        found, found_name = Conversation.from_unknown(messages, system=given_system)
        assert found_name == name
        if found_name == "anthropic":
            assert found == Conversation.from_anthropic(
                anthropic, system=given_system or (system if isinstance(messages, dict) else None)
            )
    found, name = Conversation.from_unknown([{"role": "tool", "tool_call_id": "a", "content": "b"}], system="Be brief.")
    assert (name, found[0]) == ("openai", Message.system("Be brief."))
    for wrong in ("text", 5, {"prompt": 1}, [{"parts": ["a"]}], [5]):
        with pytest.raises(InvalidPromptError):
            Conversation.from_unknown(wrong)


TEXTS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=9)
CALLS = st.dictionaries(
    st.text("abc", min_size=1, max_size=4), st.dictionaries(TEXTS, TEXTS | st.integers()), max_size=3
)
ROUNDS = st.lists(st.tuples(TEXTS, CALLS), max_size=3)
TURNS = st.lists(st.tuples(TEXTS, ROUNDS, TEXTS), max_size=3)


@given(st.none() | TEXTS, TURNS)
def test_conversations_come_back_from_each_format(system: str | None, turns: list[Any]) -> None:
    conversation = Conversation() if system is None else Conversation.system(system)
    for question, rounds, answer in turns:
        conversation.user(question)
        for text, calls in rounds:
            conversation.add(Message.ai(text))
            for call_id, arguments in calls.items():
                conversation[-1].add_tool_call(call_id, "look", msgspec.json.encode(arguments).decode())
            if not calls:
                conversation.user("Go on.")
            else:
                conversation.add(Message("tool", [ToolResultPart(each, text) for each in calls]))
        conversation.assistant(answer)
    conversation.user("Thanks.")
    apart = Conversation(each for message in conversation for each in results_apart(message))
    assert Conversation.from_openai(conversation.to_openai()) == apart
    found_system, messages = conversation.to_anthropic()
    assert Conversation.from_anthropic(messages, system=found_system) == conversation
    assert Conversation.from_openai_responses(conversation.to_openai_responses()["input"]) == conversation
    assert Conversation.from_unknown(conversation.to_openai())[0] == apart


def results_apart(message: Message) -> list[Message]:
    """Return a message for each result, as Chat Completions has them."""
    return [Message("tool", [part]) for part in message.parts] if message.role == "tool" else [message]


# --- the objects of the official libraries ---


def test_objects_of_openai() -> None:
    from openai.types.chat import ChatCompletionMessage

    message = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}],
        }
    )
    question = {"role": "user", "content": "a"}
    expected = Conversation.user("a").add(Message("assistant", [CALL]))
    assert Conversation.from_openai([question, message]) == expected
    assert Conversation.from_openai([question, {"role": "assistant", "tool_calls": message.tool_calls}]) == expected
    assert Conversation.from_unknown([question, message]) == (expected, "openai")
    refusal = ChatCompletionMessage(role="assistant", refusal="No.")
    assert Conversation.from_openai([refusal])[0].parts == (RefusalPart("No."),)


def test_objects_of_openai_responses() -> None:
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseReasoningItem

    reasoning = ResponseReasoningItem(id="rs_1", type="reasoning", summary=[], encrypted_content="c2ln")
    text = {"type": "output_text", "text": "b", "annotations": []}
    message = ResponseOutputMessage.model_validate(
        {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    )
    call = ResponseFunctionToolCall(type="function_call", call_id="c1", name="look", arguments='{"a":1}')
    conversation = Conversation.from_openai_responses([{"role": "user", "content": "a"}, reasoning, message, call])
    assert conversation[1].completion == "b"
    assert conversation[1].tool_calls == (CALL,)
    sent = conversation.to_openai_responses()["input"]
    assert sent[1]["encrypted_content"] == "c2ln"


def test_objects_of_anthropic() -> None:
    from anthropic.types import TextBlock, ThinkingBlock, ToolUseBlock

    blocks = [
        ThinkingBlock(type="thinking", thinking="Hm.", signature="c2ln"),
        TextBlock(type="text", text="b", citations=None),
        ToolUseBlock(type="tool_use", id="c1", name="look", input={"a": None}),
    ]
    conversation = Conversation.from_anthropic(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": blocks}]
    )
    assert conversation[1].parts == (
        ReasoningPart("Hm."),
        ProviderDataPart("anthropic", "signature", "c2ln"),
        TextPart("b"),
        ToolCallPart("c1", "look", '{"a":null}', {"a": None}),
    )
    assert conversation.to_anthropic()[1][1]["content"][0]["signature"] == "c2ln"


def test_mistral_takes_the_messages() -> None:
    from mistralai.client.models import ChatCompletionRequest

    ChatCompletionRequest.model_validate({"model": "m", "messages": chat().to_mistral()})


def test_google_takes_the_contents() -> None:
    from google.genai.types import Content

    _, contents = chat().to_gemini()
    assert Content.model_validate(contents[0]).parts[0].text == "What is this?"  # type: ignore[index]
