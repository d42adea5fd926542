"""Errors of calls as clients of a server get them: their classes, their texts, and the HTTP statuses that fit them."""

from __future__ import annotations

import builtins

from lm_deluge import errors
from lm_deluge.errors import APIError, DelugeError

__all__ = ["as_api_error", "public_text", "web_status"]

# What clients get for failures that are no answer of a provider.
_FAILURES: tuple[tuple[type[DelugeError], type[APIError], int], ...] = (
    (errors.MissingAPIKeyError, errors.ServerError, 500),
    (errors.UnknownModelError, errors.NotFoundError, 404),
    (errors.ConfigurationError, errors.BadRequestError, 400),
    (errors.TimeoutError, errors.ServerError, 504),
    (errors.TransportError, errors.ServerError, 502),
    (errors.ProtocolError, errors.ServerError, 502),
    (errors.BudgetError, errors.QuotaExceededError, 402),
    (errors.DispatchError, errors.OverloadedError, 503),
)

# Statuses of a web application whose provider failed: its account and its models are none of the browser's business.
_WEB_STATUSES: tuple[tuple[type[DelugeError], int], ...] = (
    (errors.RateLimitError, 429),
    (errors.OverloadedError, 503),
    (errors.TimeoutError, 504),
    (errors.RequestTooLargeError, 413),
    (errors.BadRequestError, 400),
    (errors.InvalidPromptError, 400),
    (errors.ConfigurationError, 500),
    (errors.QueueClosedError, 503),
    (errors.BudgetError, 503),
    (errors.DispatchError, 500),
)
_BAD_GATEWAY, _INTERNAL = 502, 500  # statuses of other failures of a provider, and of exceptions that are not ours


def as_api_error(error: BaseException) -> APIError:
    """Return an error as the API error that a client of a server gets; messages never contain keys or prompts."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, DelugeError):
        for kind, shown, status in _FAILURES:
            if isinstance(error, kind):
                text = f"{error.message}. {error.hint}" if error.hint else error.message
                return shown(text, status_code=status, code=_code_of(error))
    if isinstance(error, builtins.TimeoutError):
        return errors.ServerError("the request took too long", status_code=504, code="timeout")
    return errors.ServerError("the server failed", status_code=_INTERNAL, code="internal_error")


def _code_of(error: DelugeError) -> str | None:
    """Return the code for a failed connection to the provider; None for other errors."""
    if isinstance(error, errors.TransportError | errors.ProtocolError):
        words = type(error).__name__.removesuffix("Error")
        return "upstream_" + "".join(f"_{each.lower()}" if each.isupper() else each for each in words).lstrip("_")
    return None


def public_text(error: BaseException) -> str:
    """Return the text of an error for users: the message of one of ours, which has no key and no prompt in it."""
    text = error.message if isinstance(error, DelugeError) else "the server failed"
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def web_status(error: BaseException) -> int:
    """Return the HTTP status of a web application for a call that failed before its answer began."""
    if not isinstance(error, DelugeError):
        return _INTERNAL
    return next((status for kind, status in _WEB_STATUSES if isinstance(error, kind)), _BAD_GATEWAY)
