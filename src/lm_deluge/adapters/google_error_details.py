"""What Google's errors say beside their message: `details`, each with an `@type`.

https://cloud.google.com/apis/design/errors#error_details (read 2026-11). A quota is told of as `QuotaFailure`, when to
ask again as `RetryInfo`, and the reason in one word as `ErrorInfo`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

__all__ = ["Details", "read_details"]

_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
# A quota of a day, and one of nothing, is not waited for: the free tier has such for models that are not in it.
_DAILY = re.compile(r"per_?day", re.IGNORECASE)
_NO_QUOTA = re.compile(r"\blimit: 0\b")


class Details(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        words: Reasons, in lower case; `insufficient_quota` for a quota that is used up for long.
        retry_after_s: Seconds after which to ask again; None where nothing is said.
    """

    words: tuple[str, ...] = ()
    retry_after_s: float | None = None


def read_details(details: Any, message: str) -> Details:
    """Read the `details` of an error; those of other providers have nothing of this."""
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
