"""The `details` of Google's errors: a list of objects, each with an `@type`.

https://cloud.google.com/apis/design/errors#error_details (read 2026-11). `QuotaFailure` names the exceeded quotas and
`ErrorInfo` has the reason as one identifier; `wire/retry_after.py` reads the delay in `RetryInfo`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["read_reasons"]

# Waiting does not help with a daily quota, nor with a quota of zero, which the free tier has for models outside it.
_DAILY = re.compile(r"per_?day", re.IGNORECASE)
_NO_QUOTA = re.compile(r"\blimit: 0\b")


def read_reasons(details: Any, message: str) -> tuple[str, ...]:
    """Return the reasons in the `details` and the message of an error, in lower case.

    `insufficient_quota` is one of them if a quota does not recover within minutes. Errors of other providers have none.
    """
    words: list[str] = []
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        if isinstance(detail.get("reason"), str):
            words.append(detail["reason"].lower())
        if any(_is_lasting(violation) for violation in _violations(detail)):
            words.append("insufficient_quota")
    if details and _NO_QUOTA.search(message):
        words.append("insufficient_quota")
    return tuple(words)


def _violations(detail: dict[str, Any]) -> Iterator[dict[str, Any]]:
    violations = detail.get("violations")
    return (each for each in (violations if isinstance(violations, list) else ()) if isinstance(each, dict))


def _is_lasting(violation: dict[str, Any]) -> bool:
    return bool(_DAILY.search(str(violation.get("quotaId")))) or str(violation.get("quotaValue")) == "0"
