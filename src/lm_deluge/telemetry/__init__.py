"""What happens in calls, for logs, traces, metrics and programs of your own: docs/telemetry.md."""

from lm_deluge.telemetry.observer import (
    AgentObserver,
    CallObserver,
    ObservedAttempt,
    ObservedCall,
    Observer,
    ToolObserver,
    observe_all_calls,
    outcome_of,
)

__all__ = [
    "AgentObserver",
    "CallObserver",
    "ObservedAttempt",
    "ObservedCall",
    "Observer",
    "ToolObserver",
    "observe_all_calls",
    "outcome_of",
]
