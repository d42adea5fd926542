"""The wait that a provider asks for before the next request: in headers, or only in the body of its error.

Headers, in this order: `retry-after-ms`, `retry-after` in seconds, `retry-after` as an HTTP date (RFC 9110, 10.2.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lm_deluge.wire.decimal_text import DECIMAL, parse_decimal

__all__ = ["find_wait", "parse_retry_after"]

_LONGEST_S = 10 * 365 * 86_400.0  # rejects timestamps and nonsense; the caller decides how long it is willing to wait
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}  # by the letters with which units begin
_UNIT = (
    r"(?:ms|msecs?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)"
    "(?![a-z])"  # the m of "5 million" is no unit
    "|ms(?=[0-9])|[smhd](?=[0-9])"
)
_STEP = re.compile(rf"({DECIMAL})\s?({_UNIT})", re.IGNORECASE)
_DURATION = rf"(?:{DECIMAL}\s?(?:{_UNIT})(?:,?\s(?:and\s)?)?)+"
# "Please try again in 12.1s." (OpenAI), "in 1m3.5s" (Groq), "Please retry after 20 seconds." (Azure), "Please retry in
# 34.07s." (Google), "wait 5 minutes": https://platform.openai.com/docs/guides/rate-limits and
# https://learn.microsoft.com/azure/ai-services/openai/how-to/quota (2026-11). No full stop and no other number stands
# between the verb and the wait.
_NAMED_WAIT = re.compile(rf"\b(?:again|retry|wait|resets?|available)\b[^.0-9\n]{{0,40}}?({_DURATION})", re.IGNORECASE)
_SECONDS_WITHOUT_UNIT = re.compile(rf"\bretry[ _-]after\b['\"]?[:=]?\s*({DECIMAL})(?!\s?[a-z0-9%])", re.IGNORECASE)
# Fields of error objects, without the separators in their names.
_FIELDS_S = {
    "retryafter": 1.0,
    "retryafters": 1.0,
    "retryaftersec": 1.0,
    "retryafterseconds": 1.0,
    "retryafterms": 1e-3,
    "retryaftermilliseconds": 1e-3,
    "retrydelay": 1.0,
}
_MOST_NESTED = 4  # payload, error, metadata or details, an object in it


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds, or None without a usable header.

    A date is compared with the response's own `date` header, as our clock and the server's may differ; the transport
    adds that header where the server sends none. Negative, past, infinite and absurdly large values are not usable.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"), 1e-3)
    if milliseconds is not None:
        return milliseconds
    value = headers.get("retry-after")
    seconds = _seconds(value, 1.0)
    if seconds is not None or value is None:
        return seconds
    from email.utils import parsedate_to_datetime  # rarely needed, slow to import

    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return _usable(wait.total_seconds())


def find_wait(payload: Any, message: str) -> float | None:
    """Return the longest wait, in seconds, that an error names in a field of its object or in its message.

    Args:
        payload: The decoded body of the error, of any structure.
        message: The error's message: "Please try again in 1m3.5s", "retry after 20 seconds" and the like.
    """
    waits = [*_waits_in_fields(payload), *_waits_in_text(message)]
    return max((wait for wait in waits if wait is not None), default=None)


def _waits_in_fields(value: Any, depth: int = 0) -> Iterator[float | None]:
    if depth > _MOST_NESTED:
        return
    if isinstance(value, list):
        for item in value:
            yield from _waits_in_fields(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            unit_s = _FIELDS_S.get(str(name).lower().replace("_", "").replace("-", ""))
            if unit_s is None:
                yield from _waits_in_fields(item, depth + 1)
            elif isinstance(item, str):
                wait = _seconds(item, unit_s)
                yield _duration(item) if wait is None else wait
            elif isinstance(item, int | float) and not isinstance(item, bool):
                yield _usable(item * unit_s)


def _waits_in_text(message: str) -> Iterator[float | None]:
    yield from (_duration(found[1]) for found in _NAMED_WAIT.finditer(message))
    yield from (_seconds(found[1], 1.0) for found in _SECONDS_WITHOUT_UNIT.finditer(message))


def _duration(text: str) -> float | None:
    """Return the seconds of a duration such as `1m3.5s` or `5 minutes`; None for any other text."""
    steps = _STEP.findall(text)
    if not steps or re.fullmatch(_DURATION, text.strip(), re.IGNORECASE) is None:
        return None
    return _usable(sum(float(number) * _UNITS_S[_letters(unit)] for number, unit in steps))


def _letters(unit: str) -> str:
    """Return the key of a unit in `_UNITS_S`: milliseconds have two letters in common with minutes."""
    small = unit.lower()
    return "ms" if small.startswith(("ms", "milli")) else small[0]


def _seconds(text: str | None, unit_s: float) -> float | None:
    number = parse_decimal(text) if text else None
    return None if number is None else _usable(number * unit_s)


def _usable(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= _LONGEST_S else None
