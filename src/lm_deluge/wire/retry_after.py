"""Parser of the headers with which a provider asks for a pause before the next request.

Order: `retry-after-ms`, then `retry-after` in seconds, then `retry-after` as an HTTP date (RFC 9110, 10.2.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["parse_retry_after"]

_LONGEST_S = 10 * 365 * 86_400.0  # rejects timestamps and nonsense; the caller decides how long it is willing to wait


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds, or None without a usable header.

    A date is compared with the response's own `date` header, as our clock and the server's may differ. Negative,
    past, infinite and absurdly large values are not usable.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    from email.utils import parsedate_to_datetime  # rarely needed, slow to import

    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return _usable(wait.total_seconds())


def _number(text: str | None) -> float | None:
    try:
        return _usable(float(text)) if text else None
    except ValueError:
        return None


def _usable(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _LONGEST_S else None
