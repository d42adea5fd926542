"""Which API of a host serves a call: Chat Completions, or the Responses API for what only that one accepts. Pure.

https://developers.openai.com/api/docs/guides/responses-vs-chat-completions (2026-11)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.openai_responses.items import ECHOED
from lm_deluge.prompt.parts import AudioPart, ProviderDataPart
from lm_deluge.prompt.tool import ProviderTool

__all__ = [
    "ABSENT_PARAMETERS",
    "Need",
    "by_responses",
    "chat_only",
    "find_model_need",
    "find_need",
    "may_be_routed",
    "route_call",
]

ABSENT_PARAMETERS = ("stop", "seed", "presence_penalty", "frequency_penalty")
"""The parameters of Chat Completions that the Responses API does not have.

https://platform.openai.com/docs/guides/migrate-to-responses (2026-11)
"""

# Fields of `extra_body` that are Chat Completions' own, or have another name or form in the Responses API. Same page.
_CHAT_FIELDS = frozenset(
    {
        *ABSENT_PARAMETERS,
        *("audio", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens"),
        *("messages", "modalities", "n", "prediction", "reasoning_effort", "response_format", "verbosity"),
        *("stream_options", "web_search_options"),
    }
)
_CHAT_TOOLS = ("function", "custom")  # the types of tools that Chat Completions takes; hosted tools have other types


class Need(NamedTuple):
    """What Chat Completions rejects in a call.

    Attributes:
        parameter: The parameter, `model` for a model that has the Responses API only.
        what: The part of a message that names it.
    """

    parameter: str
    what: str


def route_call(call: Call) -> Call:
    """Return the call with the API that serves it: a call that needs the Responses API gets it, if the host has both.

    The provider stays the same one in every other respect: its id, key, base URL, headers and limits.
    """
    if not call.provider.has_responses:
        return call
    if find_need(call) is None and (chat_only(call) is not None or not _has_response_items(call)):
        return call
    return by_responses(call)


def may_be_routed(call: Call) -> bool:
    """Whether the API of a call depends on its conversation, or is another one than that of the provider's row."""
    has_need = bool(call.model.capabilities.needs_responses) or any(
        isinstance(each, ProviderTool) for each in call.tools
    )
    return call.provider.has_responses and has_need


def by_responses(call: Call) -> Call:
    """Return the call through the Responses API of its host."""
    provider = msgspec.structs.replace(call.provider, adapter="openai-responses", path="", stream_path="")
    return msgspec.structs.replace(call, provider=provider)


def find_need(call: Call) -> Need | None:
    """Return what the call needs the Responses API for; None if Chat Completions serves it."""
    need = find_model_need(call)
    if need is None and call.background and call.model.capabilities.needs_responses:
        return Need("background", "background mode")
    if need is None:
        hosted = (tool.name for tool in call.tools if isinstance(tool, ProviderTool) and _is_hosted(tool.data))
        name = next(hosted, None)
        need = None if name is None else Need("tools", f"the tool {name!r}")
    return need


def find_model_need(call: Call) -> Need | None:
    """Return what the model of the call rejects in Chat Completions only, as its row has it; None: nothing."""
    needs = call.model.capabilities.needs_responses
    if not needs:
        return None
    # In `extra_body` the field replaces the parameter.
    effort = call.extra_body.get("reasoning_effort", call.params.reasoning_effort)
    if "every_request" in needs:
        return Need("model", "every request of this model")
    if "tools_while_reasoning" in needs and call.tools and call.model.capabilities.reasons(effort):
        return Need("tools", "tools while the model reasons")
    if "effort_max" in needs and effort == "max":
        return Need("reasoning_effort", "reasoning_effort='max'")
    return None


def chat_only(call: Call) -> str | None:
    """Return the first thing in a call that only Chat Completions accepts; None if there is none."""
    for name in ABSENT_PARAMETERS:
        if getattr(call.params, name) is not None:
            return name
    for name in call.extra_body:
        if name in _CHAT_FIELDS:
            return f"{name} in extra_body"
    for message in call.conversation:
        if message.name is not None:
            return "name of a message"
        if message.role == "user" and any(isinstance(part, AudioPart) for part in message.parts):
            return "audio"
    return None


def _is_hosted(data: dict[str, Any]) -> bool:
    return data.get("type", "function") not in _CHAT_TOOLS


def _has_response_items(call: Call) -> bool:
    """Whether the conversation has items of the Responses API, such as encrypted reasoning, that the model takes back.

    A model that never needs this API may reject the items of another one, so they are left out of its requests.
    """
    if not call.model.capabilities.needs_responses or call.conversation.is_text:
        return False
    owner = call.provider.opaque_owner
    return any(
        isinstance(part, ProviderDataPart) and part.provider == owner and part.kind in ECHOED
        for message in call.conversation
        for part in message.parts
    )
