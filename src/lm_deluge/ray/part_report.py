"""The outcome of a part of the input."""

from __future__ import annotations

import msgspec

from lm_deluge.response import APIResponse

__all__ = ["PartReport"]


class PartReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a part, or its state at a moment.

    Attributes:
        part: Its number.
        rows: Number of its rows.
        answered, failed: Number of rows that are answered and that failed.
        open: Number of rows that are left to the next run, because the budget is spent or there is no key.
        is_new: Whether this run has written its file.
        input_tokens, output_tokens, cost: Sums over the rows.
        again: The ids of rows that were sent again although an earlier request may have been billed.
        errors: Number of failed rows by class of error.
        problem: Why the part was not asked, if it was not.
    """

    part: int
    rows: int
    answered: int = 0
    failed: int = 0
    open: int = 0
    is_new: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    again: list[str] = []
    errors: dict[str, int] = {}
    problem: str | None = None

    def with_response(self, response: APIResponse) -> PartReport:
        """Return the report with one more row."""
        kind = None if response.error is None else type(response.error).__name__
        usage, cost = response.usage, response.cost
        return msgspec.structs.replace(
            self,
            answered=self.answered + (kind is None),
            failed=self.failed + (kind is not None),
            input_tokens=self.input_tokens + (0 if usage is None else usage.input_tokens),
            output_tokens=self.output_tokens + (0 if usage is None else usage.output_tokens),
            cost=self.cost if cost is None else (self.cost or 0.0) + cost,
            errors=self.errors if kind is None else {**self.errors, kind: self.errors.get(kind, 0) + 1},
        )
