"""A fault: its name, its parameters, and where it takes hold of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lm_deluge.events import Event
from lm_deluge.simulator.plan import Site, WirePlan

__all__ = ["SSE", "EditEvents", "EditPlan", "Parameters", "Row"]

SSE = "server-sent events"

Parameters: TypeAlias = Mapping[str, Any]
EditEvents: TypeAlias = Callable[[list[Event], Site, Parameters], list[Event]]
EditPlan: TypeAlias = Callable[[WirePlan, Parameters], WirePlan]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of fault.

    Attributes:
        description: What the client meets, in one sentence.
        defaults: Its parameters and what they are when nothing is said.
        edit_events: Changes the answer before it is written.
        edit_plan: Changes the bytes, or how they are sent.
        only_streams: It needs frames: plain answers pass unharmed.
        is_refusal: The answer is replaced, so no script is used up.
        needs: The wire API whose fields it changes, or `SSE` for any that streams server-sent events; empty: any.
    """

    description: str
    edit_plan: EditPlan | None = None
    edit_events: EditEvents | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    only_streams: bool = True
    is_refusal: bool = False
    needs: str = ""
