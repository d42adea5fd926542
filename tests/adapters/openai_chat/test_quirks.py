"""Differences of Chat Completions hosts: one test for each quirk of a provider row."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.adapters.openai_chat.request import build_chat_body
from lm_deluge.config import SamplingParams
from lm_deluge.errors import UnsupportedParameterError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import Capabilities, ModelRow, Quirks
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.prompt.tool import ProviderTool, Tool
from samples.chat_bytes import chunk, read, text
from samples.chat_calls import a_call, body_of

HI = Conversation.user("Hi")
TOOL = Tool(name="add")
MARK = {"type": "ephemeral"}


def body_at(
    provider: str,
    conversation: Conversation = HI,
    *,
    capabilities: Capabilities | None = None,
    name: str = "m",
    **fields: Any,
) -> dict[str, Any]:
    """Return the body of a request to a host, with the quirks of its row."""
    row = find_provider(provider)
    model = ModelRow(id="m", name=name, provider=row.id, capabilities=capabilities or Capabilities())
    return build_chat_body(Call(model=model, provider=row, conversation=conversation, base_url="https://x", **fields))


def test_usage_option() -> None:
    assert "stream_options" not in body_of(HI, quirks=Quirks(usage_option=False))


def test_max_tokens_field() -> None:
    assert body_at("openai", params=SamplingParams(max_new_tokens=9))["max_completion_tokens"] == 9
    assert body_at("deepseek", params=SamplingParams(max_new_tokens=9))["max_tokens"] == 9


@pytest.mark.parametrize(("provider", "role"), [("openai", "developer"), ("azure", "developer"), ("groq", "system")])
def test_developer_role(provider: str, role: str) -> None:
    sent = body_at(provider, Conversation([Message.developer("Be brief."), Message.user("Hi")]))
    assert sent["messages"] == [{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}]


THOUGHT = Message("assistant", (ReasoningPart("Hm."), TextPart("Yes."), ToolCallPart("c1", "add", "{}")))


@pytest.mark.parametrize(
    ("provider", "fields"),
    [
        ("openai", {"content": "Yes."}),
        ("deepseek", {"content": "Yes.", "reasoning_content": "Hm."}),
        ("moonshot", {"content": "Yes.", "reasoning_content": "Hm."}),
        ("openrouter", {"content": "Yes.", "reasoning": "Hm."}),
        ("minimax", {"content": "<think>Hm.</think>Yes."}),
    ],
)
def test_reasoning_field(provider: str, fields: dict[str, str]) -> None:
    conversation = Conversation([Message.user("Hi"), THOUGHT, Message.tool_result("c1", "3")])
    sent = body_at(provider, conversation)["messages"][1]
    assert {name: value for name, value in sent.items() if name not in ("role", "tool_calls")} == fields


def test_an_answers_reasoning_goes_back_with_the_next_turn() -> None:
    body = chunk({"reasoning_content": "Hm."}) + text("Yes.") + chunk({}, "stop") + b"data: [DONE]\n\n"
    answer = read(body).content
    sent = body_at("zai", Conversation([Message.user("Hi"), answer, Message.user("And?")]))["messages"][1]
    assert sent == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}


def test_reasoning_that_has_its_details_is_not_sent_twice() -> None:
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": "s"}]
    parts = (ReasoningPart("Hm."), TextPart("Yes."), ProviderDataPart("openrouter", "reasoning_details", details))
    sent = body_at("openrouter", Conversation([Message.user("Hi"), Message("assistant", parts)]))["messages"][1]
    assert sent == {"role": "assistant", "content": "Yes.", "reasoning_details": details}


def test_reasoning_alone_is_a_message_too() -> None:
    sent = body_at("deepseek", Conversation([Message.user("Hi"), Message("assistant", (ReasoningPart("Hm."),))]))
    assert sent["messages"][1] == {"role": "assistant", "content": "", "reasoning_content": "Hm."}


@pytest.mark.parametrize(("field", "dropped"), [("", ("reasoning_not_sent",)), ("reasoning_content", ())])
def test_no_warning_is_given_of_reasoning_that_is_sent(field: Any, dropped: tuple[str, ...]) -> None:
    call = a_call(Conversation([Message.user("Hi"), THOUGHT]), quirks=Quirks(reasoning_field=field))
    assert dropped_parts(call, OpenAIChat()) == dropped


@pytest.mark.parametrize(
    ("provider", "effort", "fields"),
    [
        ("openai", "high", {"reasoning_effort": "high"}),
        ("openrouter", "high", {"reasoning": {"effort": "high"}}),
        ("deepseek", "high", {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("zai", "none", {"thinking": {"type": "disabled"}}),
        ("alibaba", "low", {"enable_thinking": True}),
        ("alibaba", "none", {"enable_thinking": False}),
    ],
)
def test_effort_field(provider: str, effort: Any, fields: dict[str, Any]) -> None:
    sent = body_at(provider, params=SamplingParams(reasoning_effort=effort))
    names = ("reasoning_effort", "reasoning", "thinking", "enable_thinking")
    assert {name: sent[name] for name in names if name in sent} == fields


@pytest.mark.parametrize(
    ("provider", "parameter", "fields"),
    [
        ("groq", "logprobs", {"params": SamplingParams(logprobs=True)}),
        ("groq", "top_logprobs", {"params": SamplingParams(top_logprobs=0)}),
        ("cerebras", "presence_penalty", {"params": SamplingParams(presence_penalty=0.0)}),
        ("groq", "name", {"conversation": Conversation([Message("user", (TextPart("Hi"),), name="Ann")])}),
    ],
)
def test_rejects(provider: str, parameter: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError, match=f"{provider} takes no {parameter}") as caught:
        body_at(provider, **fields)
    assert caught.value.parameter == parameter
    assert body_at(provider)


@pytest.mark.parametrize(
    ("parameter", "fields"), [("tools", {"tools": (TOOL,)}), ("output", {"output": {"type": "object"}})]
)
def test_tools_and_schemas_can_be_rejected_too(parameter: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError, match=parameter):
        body_of(HI, quirks=Quirks(rejects=(parameter,)), **fields)


CHAT = Conversation(
    [Message.system("Long."), Message.user("One"), Message("assistant", (TextPart("1"),)), Message.user("Two")]
)


def marked(body: dict[str, Any]) -> list[str]:
    """Return the texts that have a cache mark, and `tool` for a marked tool."""
    found = []
    for message in body["messages"]:
        if isinstance(message["content"], list):
            found += [piece["text"] for piece in message["content"] if piece.get("cache_control") == MARK]
    return [*found, *("tool" for tool in body.get("tools", ()) if tool.get("cache_control") == MARK)]


@pytest.mark.parametrize("provider", ["openrouter", "litellm", "alibaba"])
@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        ("tools_only", ["tool"]),
        ("system_and_tools", ["Long."]),
        ("last_user_message", ["Two"]),
        ("last_2_user_messages", ["One", "Two"]),
        ("last_3_user_messages", ["One", "Two"]),
    ],
)
def test_prompt_cache(provider: str, cache: Any, expected: list[str]) -> None:
    assert marked(body_at(provider, CHAT, tools=(TOOL,), cache=cache)) == expected


def test_without_a_system_message_the_mark_is_at_the_last_tool() -> None:
    own = ProviderTool({"type": "search"})
    assert marked(body_at("openrouter", HI, tools=(own,), cache="system_and_tools")) == ["tool"]
    assert own.data == {"type": "search"}


def test_hosts_that_cache_by_themselves_get_no_marks() -> None:
    assert marked(body_at("openai", CHAT, cache="last_user_message")) == []
    with pytest.raises(UnsupportedParameterError, match="cache"):
        body_at("nvidia", CHAT, cache="last_user_message")


CALLED = Message.assistant(tool_calls=[ToolCallPart("c1", "add", "{}")])


@pytest.mark.parametrize(
    ("provider", "field"), [("deepseek", ""), ("moonshot", ""), ("openai", None), ("openrouter", None), ("zai", None)]
)
def test_a_call_without_reasoning_has_the_field_where_it_is_required(provider: str, field: str | None) -> None:
    """DeepSeek answers calls without the field with a 400: https://github.com/danny-avila/LibreChat/issues/13366."""
    conversation = Conversation([Message.user("Hi"), CALLED, Message.tool_result("c1", "3"), Message.assistant("3")])
    _, called, _, text = body_at(provider, conversation)["messages"]
    assert called.get("reasoning_content") == field
    assert "reasoning_content" not in text


@pytest.mark.parametrize(
    ("provider", "model", "is_signed"),
    [
        ("gemini-openai", "gemini-3-pro", True),
        ("gemini-openai", "gemini-2.5-pro", False),
        ("openai", "gemini-3-pro", False),
    ],
)
def test_gemini_needs_a_signature_of_calls_of_other_models(provider: str, model: str, *, is_signed: bool) -> None:
    turn = [Message.assistant(tool_calls=[ToolCallPart(name, "add", "{}") for name in "ab"])]
    turn += [Message.tool_result("a", "3"), Message.tool_result("b", "3")]
    messages = body_at(provider, Conversation([Message.user("Hi"), *turn, Message.user("More"), *turn]), name=model)
    calls = [each for message in messages["messages"] for each in message.get("tool_calls", ())]
    signed = {"google": {"thought_signature": "skip_thought_signature_validator"}}
    assert [each.get("extra_content") for each in calls] == [None, None, signed if is_signed else None, None]


@pytest.mark.parametrize("choice", ["required", "add"])
def test_a_forced_call_is_refused_while_deepseek_thinks(choice: str) -> None:

    def sent(able: Capabilities, **params: Any) -> Any:
        return body_at("deepseek", capabilities=able, tools=(TOOL,), params=SamplingParams(**params))

    for able, effort in ((Capabilities(reasoning=True), None), (Capabilities(), "high")):
        with pytest.raises(UnsupportedParameterError, match="while it reasons") as caught:
            sent(able, tool_choice=choice, reasoning_effort=effort)
        assert caught.value.parameter == "tool_choice"
        assert sent(able, tool_choice="auto", reasoning_effort=effort)["tool_choice"] == "auto"
        assert "tool_choice" in sent(able, tool_choice=choice, reasoning_effort="none")
    able = Capabilities(reasoning=False)
    assert "tool_choice" in sent(able, tool_choice=choice)


@pytest.mark.parametrize(
    ("provider", "base_url", "url", "marked"),
    [
        ("deepseek", "https://api.deepseek.com", "https://api.deepseek.com/beta/chat/completions", True),
        ("deepseek", "https://api.deepseek.com/beta", "https://api.deepseek.com/beta/chat/completions", True),
        ("deepseek", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/chat/completions", True),
        ("openrouter", "https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/chat/completions", False),
    ],
)
def test_where_a_last_message_is_continued(provider: str, base_url: str, url: str, *, marked: bool) -> None:
    row = find_provider(provider)
    model = ModelRow(id="m", name="m", provider=row.id)
    prefilled = Conversation([Message.user("Count."), Message.assistant("One, two")])
    call = Call(model=model, provider=row, conversation=prefilled, base_url=base_url)
    request = OpenAIChat().build_request(call)
    last = msgspec.json.decode(request.body)["messages"][-1]
    assert (request.url, last) == (
        url,
        {"role": "assistant", "content": "One, two"} | ({"prefix": True} if marked else {}),
    )
    plain = OpenAIChat().build_request(msgspec.structs.replace(call, conversation=HI))
    assert plain.url == f"{base_url}/chat/completions"
    assert b"prefix" not in plain.body
