"""Filters over the text of an answer, while it is generated.

Example:
    >>> from lm_deluge.filters import Redact, StopAt
    >>> response = await client.stream("Hello", filters=[StopAt("END"), Redact("Acme", "[name]")])
"""

from lm_deluge.filters.rules import Guard, RaiseAt, ReasoningTags, Redact, StopAt

__all__ = ["Guard", "RaiseAt", "ReasoningTags", "Redact", "StopAt"]
