"""Check a call against the capabilities of its model and wire API, before anything is sent.

Unsupported parameters, and unsupported parts in messages of the user, raise an error that names them. Parts of earlier
assistant messages that this provider cannot take back, because they come from another provider's model for example, are
left out of the request and named in the response's warnings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call, SendsByModel
from lm_deluge.config import SamplingParams
from lm_deluge.errors import ConfigurationError, InvalidPromptError, UnsupportedParameterError
from lm_deluge.models.rows import Capabilities
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool_pairs import OpenCalls, PairRule, find_unpaired

__all__ = [
    "cannot_place",
    "cannot_take",
    "check_capabilities",
    "check_tool_choice",
    "dropped_parts",
    "ends_with_prefill",
    "ignored_parameters",
    "is_reasoning",
    "parts_in_pairs",
    "result_text",
    "with_warnings",
]

_NO_PARAMETERS = SamplingParams()
_SAMPLING = ("temperature", "top_p")
_PENALTIES = ("presence_penalty", "frequency_penalty")
_SHOWN = 64  # characters of a tool's name in a message: the longest name that every API accepts
_Accepted: TypeAlias = tuple[frozenset[type[Part]], frozenset[str]]  # types of parts, and kinds of opaque data
_Support: TypeAlias = bool | Literal["without_reasoning", "ignored"]
_MEDIA = {ImagePart: "image_input", FilePart: "file_input", AudioPart: "audio_input"}


def check_capabilities(call: Call, *, takes_background: bool = False, pairs: PairRule | None = None) -> None:
    """Check the call against the capabilities in the model's row and the provider's row.

    Args:
        call: The call to check.
        takes_background: Whether the wire API has a background mode.
        pairs: Where the wire API requires the results of tool calls; None if it requires none.

    Raises:
        UnsupportedParameterError: The model does not support a parameter or a part; its attribute `parameter` names it.
        InvalidPromptError: A tool call of the conversation has no result.
    """
    capabilities = call.model.capabilities
    names = _unsupported_parameters(call.params, capabilities) if call.params != _NO_PARAMETERS else ()
    for name in names:
        raise _refusal(call, name)
    if call.tools and not capabilities.tools:
        raise _refusal(call, "tools")
    if call.output is not None and not capabilities.json_schema:
        raise _refusal(call, "output")
    if call.cache is not None and call.provider.prompt_cache == "none":
        raise cannot_take(call, "cache")
    if call.background and not takes_background:
        raise cannot_take(call, "background", hint="Ask through the Responses API, openai-responses:... for example.")
    for message in call.conversation:
        if message.role != "assistant":
            _check_media(call, message.parts)
    if pairs is not None and not call.conversation.is_text:
        _check_pairs(call, pairs)
    if capabilities.prefill is False and ends_with_prefill(call):
        raise UnsupportedParameterError(
            f"{call.model.id} does not continue a last message of the role assistant (prefill)",
            parameter="prefill",
            hint="End the conversation with a user message, or take another model.",
        )


def ends_with_prefill(call: Call) -> bool:
    """Whether the model is asked to continue the text of the last message, and not the work of a tool of its own."""
    messages = call.conversation.messages
    if not messages or messages[-1].role != "assistant" or not messages[-1].parts:
        return False
    return not isinstance(messages[-1].parts[-1], ProviderDataPart)


def _check_pairs(call: Call, rule: PairRule) -> None:
    """Check that each tool call has a result. Results without a call are left to the provider: some hosts take them."""
    found = next(
        (each for each in find_unpaired(call.conversation.messages, rule) if isinstance(each, OpenCalls)), None
    )
    if found is None:
        return
    names = ", ".join(repr(each.name[:_SHOWN]) for each in found.calls)
    where = "after it" if rule == "later" else "in the next message"
    raise InvalidPromptError(
        f"the conversation has tool calls without a result {where}: {names}",
        hint="Add each with conversation.tool_result(call.id, ...), or a partial answer with "
        "conversation.add_answer(response), which leaves its calls out.",
    )


def _check_media(call: Call, parts: Sequence[Part]) -> None:
    for part in parts:
        field = _MEDIA.get(type(part))
        if field and not getattr(call.model.capabilities, field):
            raise _refusal(call, field.removesuffix("_input"))
        if isinstance(part, ToolResultPart):
            _check_media(call, part.media)


def _unsupported_parameters(params: SamplingParams, capabilities: Capabilities) -> list[str]:
    effort = params.reasoning_effort
    reasons = capabilities.reasons(effort)
    takes_sampling = _is_supported(capabilities.sampling, reasons=reasons)
    names = () if takes_sampling else _SAMPLING
    others = () if takes_sampling and capabilities.penalties else _PENALTIES
    unsupported = [name for name in (*names, *others) if getattr(params, name) is not None]
    if params.stop and not capabilities.stop:
        unsupported.append("stop")
    if (params.logprobs or params.top_logprobs is not None) and not _is_supported(
        capabilities.logprobs, reasons=reasons
    ):
        unsupported.append("logprobs")
    is_forced = params.tool_choice not in (None, "auto", "none")
    if is_forced and not _is_supported(capabilities.forced_tool_choice, reasons=reasons):
        unsupported.append(f"tool_choice={params.tool_choice!r}")
    if effort is not None and not _is_effort_supported(effort, capabilities):
        unsupported.append(f"reasoning_effort={effort!r}")
    return unsupported


def _is_supported(support: _Support, *, reasons: bool | None) -> bool:
    """Whether a parameter may be sent; the provider decides where it is unknown whether the model reasons."""
    return support in (True, "ignored") or (support == "without_reasoning" and reasons is not True)


def _is_effort_supported(effort: str, capabilities: Capabilities) -> bool:
    if capabilities.reasoning is False or capabilities.thinking == "fixed":
        return False
    return not capabilities.reasoning_efforts or effort in capabilities.reasoning_efforts


def _refusal(call: Call, parameter: str) -> UnsupportedParameterError:
    capabilities = call.model.capabilities
    hint = "Leave it out, or take another model."
    if parameter.startswith("reasoning_effort") and capabilities.reasoning_efforts:
        hint = f"It takes: {', '.join(capabilities.reasoning_efforts)}."
    return UnsupportedParameterError(
        f"{call.model.id} does not take {parameter}",
        parameter=parameter.partition("=")[0],
        hint=f"{hint} To send it all the same, use extra_body.",
    )


def cannot_take(call: Call, parameter: str, *, hint: str = "Leave it out.") -> UnsupportedParameterError:
    """Return the error for a parameter that the wire API or the provider does not support with any model."""
    return UnsupportedParameterError(
        f"{call.provider.id} takes no {parameter} through {call.provider.adapter}",
        parameter=parameter,
        model=call.model.id,
        hint=hint,
    )


def cannot_place(part: Part, role: str) -> UnsupportedParameterError:
    """Return the error for a part that is not allowed in messages of the role."""
    kind = type(part).__name__.removesuffix("Part")
    return UnsupportedParameterError(
        f"{kind} is not allowed in a message of role {role}", parameter="prompt", hint="Put it into another message."
    )


def result_text(part: ToolResultPart) -> str:
    """Return the text of a tool's result, for APIs that have no field for the failure of a tool."""
    return f"Error: {part.content}" if part.is_error else part.content


def is_reasoning(call: Call) -> bool:
    """Whether the model reasons in this call, as far as its row and the parameters tell."""
    effort = call.params.reasoning_effort
    return effort != "none" if effort is not None else bool(call.model.capabilities.reasoning)


def check_tool_choice(call: Call) -> str | None:
    """Return the call's `tool_choice`: None, `auto`, `none`, `required` or the name of a tool.

    Raises:
        ConfigurationError: The call has no tool of this name.
    """
    choice = call.params.tool_choice
    if choice not in (None, "auto", "none", "required") and choice not in {tool.name for tool in call.tools}:
        names = ", ".join(tool.name for tool in call.tools) or "none"
        raise ConfigurationError(f"tool_choice={choice!r} names no tool of the call", hint=f"Its tools: {names}.")
    return choice


def with_warnings(call: Call, adapter: Adapter) -> Call:
    """Return the call with the results of `dropped_parts` and `ignored_parameters` as its warnings."""
    found = dropped_parts(call, adapter)
    if call.model.capabilities.sampling == "ignored":
        found += ignored_parameters(call)
    return msgspec.structs.replace(call, warnings=found) if found else call


def ignored_parameters(call: Call) -> tuple[str, ...]:
    """Return a warning for each parameter that the model accepts without effect, `temperature_ignored` for example."""
    names = _SAMPLING if call.model.capabilities.sampling == "ignored" else ()
    return tuple(f"{name}_ignored" for name in names if getattr(call.params, name) is not None)


def dropped_parts(call: Call, adapter: Adapter) -> tuple[str, ...]:
    """Return a warning for each kind of assistant part in the conversation that the adapter leaves out of the request.

    The warnings are named after the part, such as `reasoning_not_sent` and `image_not_sent`; for opaque data of a
    provider it is `provider_data_not_sent`.
    """
    answers = [message for message in call.conversation.messages if message.role == "assistant"]
    if not answers:  # the first message of a chat, and nearly all rows of batches
        return ()
    found: dict[str, None] = {}
    accepted: _Accepted = (adapter.sends, adapter.echoes)
    if isinstance(adapter, SendsByModel):
        accepted = adapter.sends_to(call.model)
    for message in answers:
        found |= dict.fromkeys(_dropped_of(message, call, accepted))
    return tuple(found)


def parts_in_pairs(message: Message) -> Iterator[tuple[Part, Part | None]]:
    """Yield each part with the next part, or None after the last. Opaque data belongs to the part before it."""
    yield from itertools.pairwise(message.parts)
    if message.parts:
        yield message.parts[-1], None


def _dropped_of(message: Message, call: Call, accepted: _Accepted) -> list[str]:
    dropped = []
    for part, after in parts_in_pairs(message):
        if isinstance(part, ProviderDataPart):
            is_sent = _is_echoed(part, call, accepted)
        else:
            # The opaque data after reasoning or an image contains it: a signed thought, an item with the image.
            is_signed = isinstance(part, ReasoningPart | ImagePart) and isinstance(after, ProviderDataPart)
            is_sent = _can_be_sent(part, call, accepted) or (is_signed and _is_echoed(after, call, accepted))
        if not is_sent:
            dropped.append(f"{type(part).__struct_config__.tag}_not_sent")
    return dropped


def _can_be_sent(part: Part, call: Call, accepted: _Accepted) -> bool:
    if isinstance(part, ReasoningPart) and call.provider.quirks.reasoning_field:
        return True
    # Generated audio is referred to by its id; the API does not accept its data back.
    return type(part) in accepted[0] and not (isinstance(part, AudioPart) and part.media.file_id is None)


def _is_echoed(part: Part | None, call: Call, accepted: _Accepted) -> bool:
    return (
        isinstance(part, ProviderDataPart) and part.provider == call.provider.opaque_owner and part.kind in accepted[1]
    )
