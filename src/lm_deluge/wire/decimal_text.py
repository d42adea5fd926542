"""Numbers in headers and messages. Python's `int` and `float` accept more than a provider writes: `1_0`, `nan`, `٣`."""

from __future__ import annotations

import math
import re

__all__ = ["DECIMAL", "parse_decimal"]

DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
"""Pattern of a number without sign and exponent."""
_DECIMAL = re.compile(rf"[ \t]*({DECIMAL}(?:[eE][+-]?[0-9]{{1,3}})?)[ \t]*")


def parse_decimal(text: str) -> float | None:
    """Return a number of ASCII digits, with an optional fraction and exponent; None for any other text."""
    found = _DECIMAL.fullmatch(text)
    number = math.inf if found is None else float(found[1])
    return number if number < math.inf else None
