"""The notice about a model that ends. Pure."""

from __future__ import annotations

import datetime as dt

from lm_deluge.models.rows import ModelRow

__all__ = ["LaterModelEndWarning", "ModelEndWarning", "end_notice", "ends_soon"]

_SOON = dt.timedelta(days=30)  # enough time to change a program, and not so much that the warning becomes noise


class ModelEndWarning(UserWarning):
    """A client was made for a model that ends soon, or has ended. It is given once for each model."""


class LaterModelEndWarning(ModelEndWarning, PendingDeprecationWarning):
    """The model of a client ends in more than 30 days. As a pending deprecation Python shows it only where asked to."""


def ends_soon(row: ModelRow, today: str) -> bool:
    """Whether a model has ended, ends within 30 days, or ends on a day that is not announced."""
    if row.retires is None:
        return True
    return dt.date.fromisoformat(row.retires) - dt.date.fromisoformat(today) <= _SOON


def end_notice(row: ModelRow, today: str) -> str | None:
    """Return a sentence about the end of a model, or None if it has no announced end.

    Args:
        row: The model.
        today: The day, such as `2026-11-30`.

    Example:
        >>> end_notice(find_model("gpt-4.1"), "2026-11-30")
        'gpt-4.1 is deprecated: its provider ends it on 2027-01-14.'
    """
    status = row.status_on(today)
    if status not in ("deprecated", "retired"):
        return None
    instead = f" Take {row.successor} instead." if row.successor else ""
    if status == "retired":
        when = f" on {row.retires}" if row.retires else ""
        return f"{row.id} is retired: its provider ended it{when}.{instead}"
    when = f"on {row.retires}" if row.retires else "on a day that is not announced"
    return f"{row.id} is deprecated: its provider ends it {when}.{instead}"
