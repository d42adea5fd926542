"""Every fault by its name.

The catalogue follows the three ways in which an answer goes wrong: its bytes, its connection, what it says.
"""

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
from lm_deluge.simulator.faults.fault import SSE, Row
from lm_deluge.simulator.faults.openai_chat import CHAT_FAULTS
from lm_deluge.simulator.faults.transport import TRANSPORT_FAULTS
from lm_deluge.simulator.faults.wire import WIRE_FAULTS
from lm_deluge.simulator.plan import Site, WirePlan

__all__ = ["FAULTS", "Fault", "FaultQueue", "FaultSource"]

_ROWS: Mapping[str, Row] = MappingProxyType({**WIRE_FAULTS, **TRANSPORT_FAULTS, **ANSWER_FAULTS, **CHAT_FAULTS})

FAULTS: Mapping[str, str] = MappingProxyType({name: row.description for name, row in _ROWS.items()})
"""What the client meets, for each fault."""


@dataclass(frozen=True, init=False)
class Fault:
    """A fault and its parameters: `Fault("reset", after=5)`, `Fault("status", status=429, headers={...})`.

    `after` counts deltas: the pieces of text, reasoning and calls that come before the fault.

    Raises:
        ConfigurationError: There is no such fault, or it has no such parameter.
    """

    name: str
    params: Mapping[str, Any]

    def __init__(self, name: str, **params: Any) -> None:
        if name not in _ROWS:
            raise ConfigurationError(f"there is no fault {name!r}", hint=f"Known: {', '.join(_ROWS)}.")
        defaults = _ROWS[name].defaults
        unknown = [each for each in params if each not in defaults]
        if unknown:
            known = ", ".join(defaults) or "none"
            raise ConfigurationError(f"fault {name} has no parameter {unknown[0]!r}", hint=f"It has: {known}.")
        wrong = [each for each, value in params.items() if not _fits(each, value, defaults[each])]
        if wrong:
            raise ConfigurationError(f"{wrong[0]}={params[wrong[0]]!r} does not suit the fault {name}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "params", MappingProxyType({**defaults, **params}))

    @classmethod
    def parse(cls, text: str) -> Fault | None:
        """Read `name` or `name;parameter=value;...`; `none` is no fault. Values are JSON, or else text.

        Raises:
            ConfigurationError: There is no such fault, or it has no such parameter.
        """
        name, *settings = (piece.strip() for piece in text.split(";"))
        pairs = (setting.partition("=") for setting in settings if setting)
        params = {key.strip(): _parse_value(value.strip()) for key, _, value in pairs}
        return None if name == "none" else cls(name, **params)

    def check_fit(self, encoder: Encoder) -> None:
        """Refuse an API whose streams the fault cannot be played in.

        Raises:
            BadRequestError: It needs another wire API, or server-sent events.
        """
        needs = _ROWS[self.name].needs
        if needs and needs != encoder.name and not (needs == SSE and encoder.is_sse):
            raise BadRequestError(f"the fault {self.name} needs {needs}, not {encoder.name}", status_code=400)

    def replaces(self, site: Site) -> bool:
        """Whether nothing is left of an answer to this request."""
        row = _ROWS[self.name]
        return row.is_refusal and (site.request.is_streamed or not row.only_streams)

    def edit_events(self, events: list[Event], site: Site) -> list[Event]:
        """Return the answer as the fault changes it."""
        row = _ROWS[self.name]
        if row.edit_events is None or (row.only_streams and not site.request.is_streamed):
            return events
        return row.edit_events(events, site, self.params)

    def edit_plan(self, plan: WirePlan) -> WirePlan:
        """Return the plan as the fault changes it."""
        row = _ROWS[self.name]
        if row.edit_plan is None or (row.only_streams and not plan.is_stream):
            return plan
        return row.edit_plan(plan.written(), self.params)


def _fits(name: str, value: Any, default: Any) -> bool:
    """Whether a value is of the kind of its default; one that defaults to None is a text, or seconds."""
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
"""One fault for every request, or several that are used up one by one; None stands for a healthy answer."""


class FaultQueue:
    """Says which fault is next."""

    def __init__(self, source: FaultSource) -> None:
        several = source if isinstance(source, Sequence) and not isinstance(source, str) else ()
        single = None if isinstance(source, Sequence) and not isinstance(source, str) else source
        self._always = _parsed(single)
        self._turns: Iterator[Fault | None] = iter([_parsed(each) for each in several])

    def take(self) -> Fault | None:
        """Return the fault of the next request."""
        return next(self._turns, self._always)


def _parsed(fault: str | Fault | None) -> Fault | None:
    return Fault.parse(fault) if isinstance(fault, str) else fault
