"""What a model or its API cannot take: refused by name before anything is sent, never dropped in silence.

The user's own words and media are refused. What another model said before, and this provider cannot take back, is
left out and named in the answer's warnings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.config import SamplingParams
from lm_deluge.errors import ConfigurationError, UnsupportedParameterError
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

__all__ = [
    "cannot_stand",
    "cannot_take",
    "check_fit",
    "check_tool_choice",
    "losses",
    "parts_in_pairs",
    "with_dropped_parts",
]

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_MEDIA = {ImagePart: "image_input", FilePart: "file_input", AudioPart: "audio_input"}


def check_fit(call: Call, *, takes_background: bool = False) -> None:
    """Hold the call against the model's row; `takes_background` says whether the wire API has that mode.

    Raises:
        UnsupportedParameterError: The row says that the model cannot take something; it is named.
    """
    able = call.model.capabilities
    for name in _unfit_parameters(call.params, able):
        raise _refusal(call, name)
    if call.tools and not able.tools:
        raise _refusal(call, "tools")
    if call.output is not None and not able.json_schema:
        raise _refusal(call, "output")
    if call.cache is not None and call.provider.prompt_cache == "none":
        raise cannot_take(call, "cache")
    if call.background and not takes_background:
        raise cannot_take(call, "background", hint="Ask through the Responses API, openai-responses:... for example.")
    for message in call.conversation:
        if message.role != "assistant":
            _check_media(call, message.parts)


def _check_media(call: Call, parts: tuple[Part, ...]) -> None:
    for part in parts:
        field = _MEDIA.get(type(part))
        if field and not getattr(call.model.capabilities, field):
            raise _refusal(call, field.removesuffix("_input"))
        if isinstance(part, ToolResultPart):
            _check_media(call, part.media)


def _unfit_parameters(params: SamplingParams, able: Capabilities) -> list[str]:
    unfit = [] if able.sampling else [name for name in _SAMPLING if getattr(params, name) is not None]
    if not able.logprobs and (params.logprobs or params.top_logprobs is not None):
        unfit.append("logprobs")
    effort = params.reasoning_effort
    if effort is not None:
        is_refused = able.reasoning is False or (able.reasoning_efforts and effort not in able.reasoning_efforts)
        if is_refused:
            unfit.append(f"reasoning_effort={effort!r}")
    return unfit


def _refusal(call: Call, parameter: str) -> UnsupportedParameterError:
    able = call.model.capabilities
    hint = "Leave it out, or take another model."
    if parameter.startswith("reasoning_effort") and able.reasoning_efforts:
        hint = f"It takes: {', '.join(able.reasoning_efforts)}."
    return UnsupportedParameterError(
        f"{call.model.id} does not take {parameter}",
        parameter=parameter.partition("=")[0],
        hint=f"{hint} To send it all the same, use extra_body.",
    )


def cannot_take(call: Call, parameter: str, *, hint: str = "Leave it out.") -> UnsupportedParameterError:
    """Return the error for what the wire API or its host has no place for, whatever the model."""
    return UnsupportedParameterError(
        f"{call.provider.id} takes no {parameter} through {call.provider.adapter}", parameter=parameter, hint=hint
    )


def cannot_stand(part: Part, role: str) -> UnsupportedParameterError:
    """Return the error for a part that has no place in a message of that role."""
    kind = type(part).__name__.removesuffix("Part")
    return UnsupportedParameterError(
        f"{kind} cannot stand in a message of role {role}", parameter="prompt", hint="Put it into another message."
    )


def check_tool_choice(call: Call) -> str | None:
    """Return what the call says of tools: `auto`, `none`, `required` or the name of one of them.

    Raises:
        ConfigurationError: No tool of the call has this name.
    """
    choice = call.params.tool_choice
    if choice not in (None, "auto", "none", "required") and choice not in {tool.name for tool in call.tools}:
        names = ", ".join(tool.name for tool in call.tools) or "none"
        raise ConfigurationError(f"tool_choice={choice!r} names no tool of the call", hint=f"Its tools: {names}.")
    return choice


def with_dropped_parts(call: Call, adapter: Adapter) -> Call:
    """Return the call with the names of the parts in its warnings that are not sent; see `losses`."""
    dropped = losses(call, adapter)
    return msgspec.structs.replace(call, warnings=dropped) if dropped else call


def losses(call: Call, adapter: Adapter) -> tuple[str, ...]:
    """Name what the conversation holds of other models' answers that this provider cannot take back.

    `reasoning_not_sent`, `image_not_sent` and so on by kind of part, `provider_data_not_sent` for opaque data.
    """
    found: dict[str, None] = {}
    for message in call.conversation:
        if message.role == "assistant":
            found |= dict.fromkeys(_losses_of(message, call, adapter))
    return tuple(found)


def parts_in_pairs(message: Message) -> Iterator[tuple[Part, Part | None]]:
    """Yield each part with the one behind it, which may be opaque data that belongs to it; None behind the last."""
    yield from itertools.pairwise(message.parts)
    if message.parts:
        yield message.parts[-1], None


def _losses_of(message: Message, call: Call, adapter: Adapter) -> list[str]:
    lost = []
    for part, after in parts_in_pairs(message):
        if isinstance(part, ProviderDataPart):
            is_sent = _is_echoed(part, call, adapter)
        else:
            # A thought whose signature is echoed goes with it, and so does an image that stands in an item.
            is_signed = isinstance(part, ReasoningPart | ImagePart) and isinstance(after, ProviderDataPart)
            is_sent = _can_be_sent(part, call, adapter) or (is_signed and _is_echoed(after, call, adapter))
        if not is_sent:
            lost.append(f"{type(part).__struct_config__.tag}_not_sent")
    return lost


def _can_be_sent(part: Part, call: Call, adapter: Adapter) -> bool:
    if isinstance(part, ReasoningPart) and call.provider.quirks.reasoning_field:
        return True
    # Generated sound is told of by its id, never sent back itself.
    return type(part) in adapter.sends and not (isinstance(part, AudioPart) and part.media.file_id is None)


def _is_echoed(part: Part | None, call: Call, adapter: Adapter) -> bool:
    return (
        isinstance(part, ProviderDataPart)
        and part.provider == call.provider.opaque_owner
        and part.kind in adapter.echoes
    )
