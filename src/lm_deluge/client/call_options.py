"""What is asked beside a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["CallOptions", "Tools", "merged"]


class CallOptions(NamedTuple):
    """What is asked beside a prompt."""

    tools: Tools | None = None
    params: SamplingParams | None = None
    output: Any = None
    cache: PromptCache | None = None
    prefer_model: str | None = None
    max_cost: float | None = None
    extra_body: Mapping[str, Any] = {}


Tools = Sequence[Tool | ProviderTool | Mapping[str, Any]]


def merged(defaults: SamplingParams, own: SamplingParams | None) -> SamplingParams:
    """Return the client's sampling with a call's own on top: what a call leaves alone is the client's."""
    if own is None:
        return defaults
    if not isinstance(own, SamplingParams):
        raise ConfigurationError("sampling_params is not a SamplingParams")
    blank = SamplingParams()
    said = {name: getattr(own, name) for name in own.__struct_fields__}
    return msgspec.structs.replace(
        defaults, **{name: value for name, value in said.items() if value != getattr(blank, name)}
    )
