"""What a model cannot take is refused by name before anything is sent, never dropped in silence."""

from __future__ import annotations

from lm_deluge.config import SamplingParams
from lm_deluge.errors import UnsupportedParameterError
from lm_deluge.models.rows import Capabilities
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart
from lm_deluge.providers.adapter import Call

__all__ = ["check_fit"]

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_MEDIA = {ImagePart: "image_input", FilePart: "file_input", AudioPart: "audio_input"}


def check_fit(call: Call) -> None:
    """Hold the call against the model's row.

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
    for message in call.conversation:
        for part in message.parts:
            field = _MEDIA.get(type(part))
            if field and not getattr(able, field):
                raise _refusal(call, field.removesuffix("_input"))


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
