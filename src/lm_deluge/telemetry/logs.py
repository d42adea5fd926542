"""The logger `lm_deluge`: failed calls and retries. Records have no text of prompts and answers, and no keys.

A message of a provider may quote the prompt, so records name the class of an error and never its message.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from lm_deluge.errors import APIError, DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.telemetry.observer import CallObserver, ObservedAttempt, ObservedCall, Observer, outcome_of

__all__ = ["LogObserver", "is_logged", "logger"]

logger = logging.getLogger("lm_deluge")
logger.addHandler(logging.NullHandler())  # so that Python prints nothing if the program has no logging


class LogObserver(Observer):
    """Writes to the logger `lm_deluge`. All clients have it; it does nothing if no handler gets the records."""

    def call_started(self, call: ObservedCall) -> CallObserver | None:
        """Return what logs the call."""
        return _CallLog(call) if is_logged() else None


def is_logged() -> bool:
    """Whether a warning of the logger is written anywhere."""
    if not logger.isEnabledFor(logging.WARNING):
        return False
    found: logging.Logger | None = logger
    while found is not None:
        for handler in found.handlers:
            if type(handler) is not logging.NullHandler:
                return True
        found = found.parent if found.propagate else None
    return False


class _CallLog(CallObserver):
    def __init__(self, call: ObservedCall) -> None:
        self._model = call.model
        self._started_at = time.monotonic()

    def attempt_started(self, attempt: ObservedAttempt) -> None:
        """Log a retry."""
        fields = {"model": attempt.model, "provider": attempt.provider, "attempt": attempt.number}
        if attempt.reason is None:
            logger.debug("request to %s", attempt.model, extra=fields)
        else:
            fields["reason"] = attempt.reason
            what = "attempt %d at %s, after %s"
            logger.info(what, attempt.number, attempt.model, attempt.reason, extra=fields)

    def attempt_failed(self, attempt: ObservedAttempt, error: DelugeError) -> None:
        """Log the class of the error."""
        fields = {"model": attempt.model, "provider": attempt.provider, "attempt": attempt.number, **_named(error)}
        logger.debug("attempt %d at %s failed", attempt.number, attempt.model, extra=fields)

    def ended(self, response: APIResponse) -> None:
        """Log the end."""
        outcome = outcome_of(response)
        level = logging.WARNING if outcome == "error" else logging.DEBUG
        if not logger.isEnabledFor(level):
            return
        model = response.model_internal or self._model
        error = response.error
        fields = {"model": model, "outcome": outcome, "duration_s": round(time.monotonic() - self._started_at, 4)}
        fields |= {"attempts": response.stats.attempts if response.stats is not None else 0, "cost": response.cost}
        if response.usage is not None:
            fields |= {"input_tokens": response.usage.input_tokens, "output_tokens": response.usage.output_tokens}
        if error is not None:
            logger.log(level, "call of %s failed: %s", model, type(error).__name__, extra={**fields, **_named(error)})
        else:
            logger.log(level, "call of %s: %s", model, outcome, extra=fields)


def _named(error: DelugeError) -> dict[str, Any]:
    status = error.status_code if isinstance(error, APIError) else None
    return {"error_type": type(error).__name__, "status": status, "request_id": error.request_id}
