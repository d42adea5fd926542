"""Google's thought signatures of function calls, which its models require since Gemini 3.

https://ai.google.dev/gemini-api/docs/thought-signatures (read 2026-11)
"""

from __future__ import annotations

import re

__all__ = ["NO_SIGNATURE", "is_older_gemini"]

NO_SIGNATURE = "skip_thought_signature_validator"
"""The signature that Google documents for calls of other models; a call of the current turn without any is a 400."""

_OLDER = re.compile(r"(?:.*/)?gemini-[12]\b|(?!.*gemini)")


def is_older_gemini(model: str) -> bool:
    """Whether a model of Google is older than Gemini 3.

    Older models do not require signatures, and take no media within the result of a function:
    https://ai.google.dev/gemini-api/docs/function-calling#multimodal (read 2026-11)
    """
    return _OLDER.match(model) is not None
