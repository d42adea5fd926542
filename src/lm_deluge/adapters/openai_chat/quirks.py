"""Differences of Chat Completions hosts from OpenAI, as their provider rows list them, applied to a finished body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_take, is_reasoning
from lm_deluge.adapters.gemini_generate.signatures import NO_SIGNATURE, is_older_gemini
from lm_deluge.adapters.openai_chat.routing import find_model_need
from lm_deluge.errors import UnsupportedParameterError
from lm_deluge.models.registry import find_responses_provider
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ReasoningPart

__all__ = ["apply_quirks", "check_quirks", "reasoning_fields", "sign_foreign_calls"]

JSON = dict[str, Any]

_GOOGLE = "google"  # the owner of Gemini's opaque data at all hosts


def check_quirks(call: Call) -> None:
    """Check the call against what the host is known to refuse, in `quirks.rejects` and for models that reason.

    Raises:
        UnsupportedParameterError: The call has such a parameter; the error names it.
    """
    _check_needs_responses(call)
    if not call.provider.quirks.forces_tools_while_reasoning and is_reasoning(call):
        if call.params.tool_choice not in (None, "auto", "none"):
            raise UnsupportedParameterError(
                f"{call.model.id} takes no tool_choice={call.params.tool_choice!r} while it reasons",
                parameter="tool_choice",
                hint="Set reasoning_effort to 'none', or tool_choice to 'auto'.",
            )
    if not call.provider.quirks.rejects:
        return
    present = {
        "tools": bool(call.tools),
        "output": call.output is not None,
        "name": any(message.name for message in call.conversation),
    }
    for name in call.provider.quirks.rejects:
        value = present[name] if name in present else getattr(call.params, name)
        if value is not None and value is not False:
            raise cannot_take(call, name)


def reasoning_fields(call: Call, message: Message) -> JSON:
    """Return the reasoning of an assistant message in the field `quirks.reasoning_field`, if the host has one.

    Hosts require the reasoning between tool calls of one turn, and ignore or use it in later turns.
    """
    field = call.provider.quirks.reasoning_field
    text = "".join(part.text for part in message.parts if isinstance(part, ReasoningPart)) if field else ""
    if not text:
        return {field: ""} if call.provider.quirks.reasoning_required and message.tool_calls else {}
    if field == "content":
        return {"content": f"<think>{text}</think>{message.completion}"}
    return {field: text}


def _check_needs_responses(call: Call) -> None:
    """Check that the call is none that Chat Completions rejects and the Responses API accepts.

    Raises:
        UnsupportedParameterError: It has tools while the model reasons, for example.
    """
    need = find_model_need(call)
    if need is None:
        return
    provider = find_responses_provider(call.provider)
    name = None if provider is None else f"{provider.id}:{call.model.name}"
    raise UnsupportedParameterError(
        f"{call.model.id} does not take {need.what} through Chat Completions",
        parameter=need.parameter,
        hint="Use the Responses API." if name is None else f"Use the Responses API: {name}.",
    )


def sign_foreign_calls(call: Call, messages: list[JSON]) -> None:
    """Add Google's signature for calls of other models to the calls of the current turn, at its OpenAI-compatible host.

    https://ai.google.dev/gemini-api/docs/thought-signatures (read 2026-11): the first call of each message needs one.
    """
    if call.provider.opaque_owner != _GOOGLE or is_older_gemini(call.model.name):
        return
    for message in reversed(messages):
        if message["role"] == "user":
            return
        for first in message.get("tool_calls", ())[:1]:
            first.setdefault("extra_content", {"google": {"thought_signature": NO_SIGNATURE}})


def apply_quirks(call: Call, body: JSON) -> None:
    """Apply the provider's quirks, the reasoning effort and the cache marks to a request body, in place."""
    quirks = call.provider.quirks
    if not quirks.developer_role:
        for message in body["messages"]:
            if message["role"] == "developer":
                message["role"] = "system"
    effort = body.pop("reasoning_effort", None)
    if effort is not None:
        body |= _EFFORTS[quirks.effort_field](effort)
    if call.cache is not None and call.provider.prompt_cache == "explicit":
        _mark(call.cache, body)


def _effort(word: str) -> JSON:
    return {"reasoning_effort": word}


def _reasoning(word: str) -> JSON:
    # https://openrouter.ai/docs/use-cases/reasoning-tokens, November 2026
    return {"reasoning": {"effort": word}}


def _thinking(word: str) -> JSON:
    # https://docs.z.ai/guides/capabilities/thinking-mode and https://api-docs.deepseek.com/guides/thinking_mode,
    # November 2026: a switch, and the effort in addition for models that support several levels.
    if word == "none":
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {"type": "enabled"}, "reasoning_effort": word}


def _enable_thinking(word: str) -> JSON:
    # https://www.alibabacloud.com/help/en/model-studio/deep-thinking, November 2026: a switch without levels.
    return {"enable_thinking": word != "none"}


_EFFORTS: dict[str, Callable[[str], JSON]] = {
    "reasoning_effort": _effort,
    "reasoning": _reasoning,
    "thinking": _thinking,
    "enable_thinking": _enable_thinking,
}

_MARK: JSON = {"cache_control": {"type": "ephemeral"}}
_MARKED_USER_MESSAGES = {"last_user_message": 1, "last_2_user_messages": 2, "last_3_user_messages": 3}


def _mark(cache: str, body: JSON) -> None:
    """Add cache marks. A mark covers everything before it; in the provider's order tools come before messages."""
    messages: list[JSON] = body["messages"]
    count = _MARKED_USER_MESSAGES.get(cache, 0)
    marked = [message for message in messages if message["role"] == "user"][-count:] if count else []
    if cache == "system_and_tools":
        marked = [message for message in messages if message["role"] in ("system", "developer")][-1:]
    for message in marked:
        _mark_message(message)
    if not marked and body.get("tools"):
        body["tools"][-1] = {**body["tools"][-1], **_MARK}


def _mark_message(message: JSON) -> None:
    content = message["content"]
    pieces = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    if pieces:
        message["content"] = [*pieces[:-1], {**pieces[-1], **_MARK}]
