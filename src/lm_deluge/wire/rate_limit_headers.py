"""Parser of the rate limits in response headers, one for all providers.

Names differ in order, separators and families (`x-ratelimit-remaining-tokens`, `anthropic-ratelimit-tokens-remaining`,
`x-ratelimit-limit-req-minute`, `ratelimitbysize-reset`, `x-tokenlimit-limit`), so a name is split into its words: the
kind of value (limit, remaining, reset), the unit (requests, tokens, input, output) and the period. All other words
together distinguish buckets (`tokens_usage_based` is not `tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from lm_deluge.wire.decimal_text import DECIMAL, parse_decimal

__all__ = ["DAY_S", "HOUR_S", "MINUTE_S", "Dimension", "RateLimit", "parse_rate_limits"]

Dimension = Literal["requests", "tokens", "input_tokens", "output_tokens"]

MINUTE_S, HOUR_S, DAY_S = 60.0, 3_600.0, 86_400.0  # units of time in seconds

_PERIODS = {"second": 1.0, "minute": MINUTE_S, "hour": HOUR_S, "day": DAY_S, "month": 30 * DAY_S}
_FAMILY = re.compile(r"(?:x-|anthropic-)?(ratelimitbysize|ratelimit|rate-limit|tokenlimit|priority)-(.+)")
_IS_OF_TOKENS = {"ratelimitbysize", "tokenlimit"}
_KINDS = frozenset({"limit", "remaining", "reset"})
_SUBJECTS: dict[str, str] = {
    "requests": "requests",
    "request": "requests",
    "req": "requests",
    "tokens": "tokens",
    "token": "tokens",
    "input": "input",
    "prompt": "input",
    "output": "output",
    "generated": "output",
    "completion": "output",
}
_DURATION = re.compile(rf"({DECIMAL})(ms|us|µs|μs|ns|d|h|m|s)")
_UNITS_S = {
    "d": DAY_S,
    "h": HOUR_S,
    "m": MINUTE_S,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ns": 1e-9,
}
_LARGEST = 1e15  # far above any real limit, below 2**53, so that floats stay exact
_LONGEST_S = 40 * DAY_S  # a month, the longest period in use, with a margin
_EPOCH_S, _EPOCH_MS = 1e9, 1e12  # numbers above these are Unix times (since 2001), in seconds or milliseconds


class RateLimit(msgspec.Struct, frozen=True):
    """One rate limit of a provider.

    Attributes:
        dimension: The unit that is counted.
        period_s: Length of the period in seconds, from the header's name or inferred from the values; None: unknown.
        is_inferred: `period_s` is more than a minute and inferred from the values, not from the name. A window that
            has just started can look like a bucket that refills for an hour, so a single response is no proof.
        limit: Units per period, or None.
        remaining: Units left, never more than `limit`; None where the header is missing or unusable.
        reset_after_s: Seconds until the bucket is full again or its window ends, relative to the `date` header.
        qualifier: Distinguishes several limits of a dimension: `usage based`, `project`, `priority`; usually empty.
    """

    dimension: Dimension
    period_s: float | None = None
    limit: float | None = None
    remaining: float | None = None
    reset_after_s: float | None = None
    qualifier: str = ""
    is_inferred: bool = False


class _Bucket(msgspec.Struct, frozen=True):
    dimension: Dimension
    period: str
    qualifier: str

    @property
    def name(self) -> str:
        period = f"/{self.period}" if self.period else ""
        return f"{self.dimension}{period} ({self.qualifier})" if self.qualifier else f"{self.dimension}{period}"


def parse_rate_limits(headers: Mapping[str, str]) -> dict[str, RateLimit]:
    """Return the rate limits by name: `requests`, `tokens`, `input_tokens/minute`, `tokens (usage based)`, ...

    Invalid values (-1, NaN, a date centuries away) are ignored; no header raises an error. Points in time are compared
    with the response's own `date` header, as our clock and the provider's may differ; the transport adds that header
    where the server sends none.
    """
    found: dict[_Bucket, dict[str, float]] = {}
    for written, text in headers.items():
        name = written.lower()
        if "limit" not in name and "priority" not in name:
            continue  # fast path: most headers are unrelated
        family = _FAMILY.fullmatch(name)
        if family is None:
            continue
        parsed = _parse_name(family[1], family[2])
        if parsed is None:
            continue
        kind, bucket = parsed
        value = _reset(text, headers.get("date"), name) if kind == "reset" else _amount(text)
        if value is not None:
            found.setdefault(bucket, {}).setdefault(kind, value)
    return {bucket.name: _build(bucket, values) for bucket, values in found.items()}


def _parse_name(family: str, rest: str) -> tuple[str, _Bucket] | None:
    """Return the kind of value and its bucket; None for a name without limit, remaining or reset."""
    kind: str | None = None
    subjects: list[str] = []
    period = ""
    others = ["priority"] if family == "priority" else []
    for word in re.split(r"[-_]", rest):
        if word in _KINDS and kind is None:
            kind = word
        elif word in _SUBJECTS:
            subjects.append(_SUBJECTS[word])
        elif word in _PERIODS and not period:
            period = word
        elif word not in ("ms", ""):
            others.append(word)
    if kind is None:
        return None
    dimension = _dimension(subjects, default="tokens" if family in _IS_OF_TOKENS else "requests")
    return kind, _Bucket(dimension, period, " ".join(others))


def _dimension(subjects: list[str], default: Dimension) -> Dimension:
    if "input" in subjects:
        return "input_tokens"
    if "output" in subjects:
        return "output_tokens"
    if "tokens" in subjects:
        return "tokens"
    return "requests" if "requests" in subjects else default


def _build(bucket: _Bucket, values: dict[str, float]) -> RateLimit:
    limit, remaining, reset_after_s = (values.get(kind) for kind in ("limit", "remaining", "reset"))
    if limit is not None and remaining is not None:
        remaining = min(limit, remaining)
    named_s = _PERIODS.get(bucket.period)
    period_s = named_s or _infer_period(limit, remaining, reset_after_s)
    is_inferred = named_s is None and period_s not in (None, MINUTE_S)
    return RateLimit(bucket.dimension, period_s, limit, remaining, reset_after_s, bucket.qualifier, is_inferred)


def _infer_period(limit: float | None, remaining: float | None, reset_after_s: float | None) -> float | None:
    """Return the period in seconds, as the same header names mean minutes at some hosts and days at others.

    A bucket that refills steadily is full after `used / limit` of its period. A reset far beyond a minute cannot
    belong to a limit per minute, whatever the server's algorithm.
    """
    if limit and remaining is not None and reset_after_s and remaining < limit:
        period_s = reset_after_s * limit / (limit - remaining)
        for usual_s in (MINUTE_S, HOUR_S, DAY_S):
            if 0.9 <= period_s / usual_s <= 1.1:  # noqa: PLR2004
                return usual_s
    if reset_after_s is None or reset_after_s <= 1.5 * MINUTE_S:
        return None
    return HOUR_S if reset_after_s <= HOUR_S else DAY_S


def _amount(text: str) -> float | None:
    # The IETF's draft appends parameters: "100;w=60", "100, 100;w=60".
    number = parse_decimal(re.split(r"[;,]", text, maxsplit=1)[0])
    return number if number is not None and number <= _LARGEST else None


def _reset(text: str, date: str | None, name: str) -> float | None:
    text = re.split(r"[;,]", text, maxsplit=1)[0].strip()
    number = parse_decimal(text)
    if number is None:
        seconds = _duration(text.lower())
        if seconds is None:
            moment = _rfc3339(text)
            seconds = None if moment is None else _since(moment, date)
    elif number > _EPOCH_MS:
        seconds = _since(number / 1000, date)
    elif number > _EPOCH_S:
        seconds = _since(number, date)
    else:
        seconds = number / 1000 if name.lower().endswith(("-ms", "_ms")) else number
    return None if seconds is None or abs(seconds) > _LONGEST_S else max(0.0, seconds)


def _duration(text: str) -> float | None:
    """Parse a duration in the format of Go: `12ms`, `1.5s`, `6m0s`, `2h5m0s`."""
    pieces = list(_DURATION.finditer(text))
    if not pieces or "".join(piece[0] for piece in pieces) != text:
        return None
    return sum(float(piece[1]) * _UNITS_S[piece[2]] for piece in pieces)


def _rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _since(moment: float, date: str | None) -> float | None:
    from email.utils import parsedate_to_datetime  # slow to import; only some providers send points in time

    try:
        return moment - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
