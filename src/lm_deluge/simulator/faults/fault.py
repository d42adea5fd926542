"""The specification of a fault: its parameters, and the functions that edit an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lm_deluge.events import Event
from lm_deluge.simulator.plan import AnswerContext, WirePlan

__all__ = ["SSE", "EditEvents", "EditPlan", "FaultSpec", "Parameters"]

SSE = "server-sent events"

Parameters: TypeAlias = Mapping[str, Any]
EditEvents: TypeAlias = Callable[[list[Event], AnswerContext, Parameters], list[Event]]
EditPlan: TypeAlias = Callable[[WirePlan, Parameters], WirePlan]


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """The specification of a fault.

    Attributes:
        description: What the client receives, as one phrase.
        defaults: The parameters of the fault and their default values.
        edit_events: Edits the events of the answer, before they are encoded.
        edit_plan: Edits the bytes of the answer, or the steps that send them.
        only_streams: The fault applies to streams only; it does not change plain answers.
        replaces_answer: The fault replaces the whole answer, so the request does not take a script.
        needs: The wire API that the fault needs, `SSE` for any API with server-sent events, or empty for any API.
    """

    description: str
    edit_plan: EditPlan | None = None
    edit_events: EditEvents | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    only_streams: bool = True
    replaces_answer: bool = False
    needs: str = ""
