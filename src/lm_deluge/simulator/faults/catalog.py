"""The catalogue of faults, by name: faults of bytes, of the connection, of the status and of the content."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec

from lm_deluge.encoders.encoder import Encoder
from lm_deluge.errors import BadRequestError, ConfigurationError
from lm_deluge.events import Event
from lm_deluge.simulator.faults.answer import ANSWER_FAULTS
from lm_deluge.simulator.faults.fault import SSE, FaultSpec
from lm_deluge.simulator.faults.openai_chat import CHAT_FAULTS
from lm_deluge.simulator.faults.transport import TRANSPORT_FAULTS
from lm_deluge.simulator.faults.wire import WIRE_FAULTS
from lm_deluge.simulator.plan import AnswerContext, WirePlan

__all__ = ["FAULTS", "Fault", "FaultQueue", "FaultSource"]

_SPECS: Mapping[str, FaultSpec] = MappingProxyType({**WIRE_FAULTS, **TRANSPORT_FAULTS, **ANSWER_FAULTS, **CHAT_FAULTS})

FAULTS: Mapping[str, str] = MappingProxyType({name: spec.description for name, spec in _SPECS.items()})
"""The description of each fault, by its name: what the client receives."""


@dataclass(frozen=True, init=False)
class Fault:
    """A fault and its parameters, for example `Fault("reset", after=5)` or `Fault("status", status=429)`.

    Args:
        name: A name in `FAULTS`.
        params: Parameters of the fault; a parameter that is left out has its default. `after` is the number of deltas
            (pieces of text, reasoning and tool calls) before the fault.

    Raises:
        ConfigurationError: The name or a parameter is unknown, or a value has the wrong type.
    """

    name: str
    params: Mapping[str, Any]

    def __init__(self, name: str, **params: Any) -> None:
        if name not in _SPECS:
            raise ConfigurationError(f"there is no fault {name!r}", hint=f"Known: {', '.join(_SPECS)}.")
        defaults = _SPECS[name].defaults
        unknown = [each for each in params if each not in defaults]
        if unknown:
            known = ", ".join(defaults) or "none"
            raise ConfigurationError(f"fault {name} has no parameter {unknown[0]!r}", hint=f"It has: {known}.")
        wrong = [each for each, value in params.items() if not _is_valid(each, value, defaults[each])]
        if wrong:
            given, default = params[wrong[0]], defaults[wrong[0]]
            raise ConfigurationError(
                f"fault {name}: {wrong[0]}={given!r} is not a valid value", hint=f"The default is {default!r}."
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "params", MappingProxyType({**defaults, **params}))

    @classmethod
    def parse(cls, text: str) -> Fault | None:
        """Parse `name` or `name;parameter=value;...`; return None for `none`. A value that is not JSON is a text.

        Raises:
            ConfigurationError: The name or a parameter is unknown, or a value has the wrong type.
        """
        name, *settings = (piece.strip() for piece in text.split(";"))
        pairs = (setting.partition("=") for setting in settings if setting)
        params = {key.strip(): _parse_value(value.strip()) for key, _, value in pairs}
        return None if name == "none" else cls(name, **params)

    def check_fit(self, encoder: Encoder) -> None:
        """Check that the fault works with the wire API of an encoder.

        Raises:
            BadRequestError: The fault needs another wire API, or server-sent events.
        """
        needs = _SPECS[self.name].needs
        if needs and needs != encoder.name and not (needs == SSE and encoder.is_sse):
            raise BadRequestError(f"the fault {self.name} needs {needs}, not {encoder.name}", status_code=400)

    def replaces(self, context: AnswerContext) -> bool:
        """Whether the fault replaces the whole answer to this request."""
        spec = _SPECS[self.name]
        return spec.replaces_answer and (context.request.is_streamed or not spec.only_streams)

    def edit_events(self, events: list[Event], context: AnswerContext) -> list[Event]:
        """Return the events of the answer with the fault applied."""
        spec = _SPECS[self.name]
        if spec.edit_events is None or (spec.only_streams and not context.request.is_streamed):
            return events
        return spec.edit_events(events, context, self.params)

    def edit_plan(self, plan: WirePlan) -> WirePlan:
        """Return the plan with the fault applied."""
        spec = _SPECS[self.name]
        if spec.edit_plan is None or (spec.only_streams and not plan.is_stream):
            return plan
        return spec.edit_plan(plan.encoded(), self.params)


def _is_valid(name: str, value: Any, default: Any) -> bool:
    """Whether a value has the type of its default. A parameter with the default None takes a text, or seconds."""
    if name == "seconds":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= abs(value) < math.inf
        return is_number or (value is None and default is None)
    if default is None:
        return value is None or isinstance(value, str)
    return type(value) is type(default)


def _parse_value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


FaultSource: TypeAlias = str | Fault | Sequence[str | Fault | None] | None
"""One fault for every request, or a sequence with one item per request; None is a healthy answer."""


class FaultQueue:
    """Chooses the fault of each request; after the end of a sequence, requests have no fault."""

    def __init__(self, source: FaultSource) -> None:
        sequence = source if isinstance(source, Sequence) and not isinstance(source, str) else ()
        single = None if isinstance(source, Sequence) and not isinstance(source, str) else source
        self._default = _parsed(single)
        self._remaining: Iterator[Fault | None] = iter([_parsed(each) for each in sequence])

    def take(self) -> Fault | None:
        """Return the fault of the next request."""
        return next(self._remaining, self._default)


def _parsed(fault: str | Fault | None) -> Fault | None:
    return Fault.parse(fault) if isinstance(fault, str) else fault
