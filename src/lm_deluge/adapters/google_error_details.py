"""The `details` of Google's errors: a list of objects, each with an `@type`.

https://cloud.google.com/apis/design/errors#error_details (read 2026-11). `QuotaFailure` names the exceeded quotas,
`RetryInfo` has the delay before a retry, and `ErrorInfo` has the reason as one identifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

__all__ = ["Details", "read_details"]

_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
# Waiting does not help with a daily quota, nor with a quota of zero, which the free tier has for models outside it.
_DAILY = re.compile(r"per_?day", re.IGNORECASE)
_NO_QUOTA = re.compile(r"\blimit: 0\b")


class Details(msgspec.Struct, frozen=True):
    """The details that decide the class of an error and its retry.

    Attributes:
        words: Reasons, in lower case; `insufficient_quota` for a quota that does not recover within minutes.
        retry_after_s: Seconds to wait before a retry; None if the error has no `retryDelay`.
    """

    words: tuple[str, ...] = ()
    retry_after_s: float | None = None


def read_details(details: Any, message: str) -> Details:
    """Parse the `details` and the message of an error. Errors of other providers yield empty `Details`."""
    words: list[str] = []
    wait: float | None = None
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        if isinstance(detail.get("reason"), str):
            words.append(detail["reason"].lower())
        found = _SECONDS.fullmatch(str(detail.get("retryDelay")))
        wait = float(found[1]) if found else wait
        if any(_is_lasting(violation) for violation in _violations(detail)):
            words.append("insufficient_quota")
    if details and _NO_QUOTA.search(message):
        words.append("insufficient_quota")
    return Details(tuple(words), wait)


def _violations(detail: dict[str, Any]) -> Iterator[dict[str, Any]]:
    violations = detail.get("violations")
    return (each for each in (violations if isinstance(violations, list) else ()) if isinstance(each, dict))


def _is_lasting(violation: dict[str, Any]) -> bool:
    return bool(_DAILY.search(str(violation.get("quotaId")))) or str(violation.get("quotaValue")) == "0"
