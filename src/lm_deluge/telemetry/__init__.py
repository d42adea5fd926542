"""What happens in calls, for logs, traces, metrics and programs of your own: docs/telemetry.md."""

from lm_deluge.telemetry.observer import (
    CallObserver,
    ObservedAttempt,
    ObservedCall,
    Observer,
    observe_all_calls,
    outcome_of,
)

__all__ = ["CallObserver", "ObservedAttempt", "ObservedCall", "Observer", "observe_all_calls", "outcome_of"]
