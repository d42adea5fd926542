"""What a request of one API means for another: fields that are only hints are fitted or left out, never refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.request import effort_of_budget
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message

__all__ = ["FittedCall", "fit_hints", "left_out"]

JSON = dict[str, Any]

# The APIs that have the field `verbosity`, a hint for the length of the answer.
_WITH_VERBOSITY = ("openai-chat", "openai-responses")


# The APIs whose instructions all stand before the conversation.
_WITH_INSTRUCTIONS_FIRST = ("gemini-generate", "gemini-interactions")
_INSTRUCTIONS = ("system", "developer")

_OF_EFFORT = ("thinking", "output_config")  # Anthropic's fields that ask for more or less reasoning

# The types of tools that the client runs, and the fields of such tools that all APIs have.
_OWN_TOOLS = (None, "custom", "function")
_OF_TOOLS = {"type", "name", "description", "parameters", "input_schema", "strict", "cache_control"}
_OF_CUSTOM_TOOLS = {"format", "custom"}  # `CustomTools` decides about them


class FittedCall(NamedTuple):
    """A call that another API can take.

    Attributes:
        fitted: The fields of the request that have a counterpart in it.
        dropped: The parameters that were left out.
    """

    call: Call
    fitted: tuple[str, ...]
    dropped: tuple[str, ...]


def fit_hints(call: Call, raw: JSON, *, api: str) -> FittedCall:
    """Return the call for a model of another API.

    Args:
        call: The call, as parsed from the request.
        raw: The body of the request.
        api: The wire API of the model.
    """
    params = call.params
    fitted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    if params.verbosity is not None and api not in _WITH_VERBOSITY:
        params, dropped = msgspec.structs.replace(params, verbosity=None), ("verbosity",)
    effort = _effort_in(raw)
    if effort is not None and params.reasoning_effort is not None and not _takes_effort(call, params.reasoning_effort):
        # Claude Code asks for an effort in every request, whatever the model is (2.1).
        params, dropped = msgspec.structs.replace(params, reasoning_effort=None), (*dropped, "output_config.effort")
    elif effort is not None and params.reasoning_effort is None and _takes_effort(call, effort):
        params, fitted = msgspec.structs.replace(params, reasoning_effort=effort), _OF_EFFORT
    conversation = _without_tool_names(call.conversation)
    if api in _WITH_INSTRUCTIONS_FIRST:
        conversation = _with_instructions_first(conversation)
    return FittedCall(msgspec.structs.replace(call, params=params, conversation=conversation), fitted, dropped)


def _without_tool_names(conversation: Conversation) -> Conversation:
    """Return the conversation without the names in results of tools: Ollama alone has them, and ids name the call."""
    if all(message.role != "tool" or message.name is None for message in conversation.messages):
        return conversation
    return Conversation(
        msgspec.structs.replace(message, name=None) if message.role == "tool" else message
        for message in conversation.messages
    )


def _with_instructions_first(conversation: Conversation) -> Conversation:
    """Return the conversation with later instructions as messages of the user, at their position.

    Claude Code (2.1) sends reminders as system messages between others.
    """
    messages = conversation.messages
    start = next((at for at, message in enumerate(messages) if message.role not in _INSTRUCTIONS), len(messages))
    if all(message.role not in _INSTRUCTIONS for message in messages[start:]):
        return conversation
    later = [
        Message("user", message.parts) if message.role in _INSTRUCTIONS else message for message in messages[start:]
    ]
    return Conversation([*messages[:start], *later])


def left_out(name: str, value: Any) -> list[str]:
    """Return what a field of a request has that no other API gets, for the warning to the client."""
    if name == "reasoning" and isinstance(value, dict):
        return [f"reasoning.{inner}" for inner, given in value.items() if given is not None and inner != "effort"]
    if name == "tools" and isinstance(value, list):
        own = [tool for tool in value if isinstance(tool, dict) and tool.get("type") in _OWN_TOOLS]
        return [f"tools.{inner}" for inner in sorted(set().union(*own) - _OF_TOOLS - _OF_CUSTOM_TOOLS)]
    return [name]


def _effort_in(raw: JSON) -> Any:
    """Return the reasoning effort that Anthropic's fields stand for; None: the model decides."""
    config, thinking = raw.get("output_config"), raw.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "disabled":
        return "none"
    if isinstance(config, dict) and isinstance(config.get("effort"), str):
        return config["effort"]
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return effort_of_budget(budget) if isinstance(budget, int) else None


def _takes_effort(call: Call, effort: str) -> bool:
    capabilities = call.model.capabilities
    efforts = capabilities.reasoning_efforts
    return bool(capabilities.reasoning) and (effort in efforts if efforts else True)
