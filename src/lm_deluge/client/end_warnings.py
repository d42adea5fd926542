"""Warnings about models that end, once for each model of the process."""

from __future__ import annotations

import contextlib
import datetime as dt
import warnings
from collections.abc import Iterable

from lm_deluge.models.lifecycle import LaterModelEndWarning, ModelEndWarning, end_notice, ends_soon
from lm_deluge.models.rows import ModelRow

__all__ = ["warn_of_ends"]

_warned: set[str] = set()


def warn_of_ends(rows: Iterable[ModelRow]) -> None:
    """Give a `ModelEndWarning` for each model that is deprecated or retired today, at the line that made the client.

    Ends that are more than 30 days away are shown only where Python shows pending deprecations.
    """
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    for row in rows:
        notice = end_notice(row, today)
        if notice is not None and row.id not in _warned:
            _warned.add(row.id)
            # Under `-W error` a program would end on the day on which a provider announces the end of its model.
            kind = ModelEndWarning if ends_soon(row, today) else LaterModelEndWarning
            with contextlib.suppress(ModelEndWarning):
                warnings.warn(notice, kind, stacklevel=3)
