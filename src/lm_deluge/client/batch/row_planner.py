"""The rows of a batch file as calls: the options of a row over those of the client."""

from __future__ import annotations

import msgspec

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.batch.journaled import JournalledRows, named_model
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.dispatcher import CallPlanner, Dispatcher
from lm_deluge.dispatch.batch.circuit_breaker import CircuitBreaker
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.journal.journal import Journal

__all__ = ["RowPlanner", "answer_rows"]

# Rows of a file mostly have the same options. Of files in which each row has its own, few planners are kept.
_MOST_PLANNERS = 64


class RowPlanner:
    """Makes calls of the rows of a batch file.

    Args:
        dispatcher: What the calls of the client share.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._planners: dict[bytes, CallPlanner] = {}

    def spec(self, row: BatchRow) -> CallSpec:
        """Return the call of a row.

        Raises:
            DelugeError: The row is no call, or its call cannot be sent.
        """
        if row.error is not None:
            raise row.error
        spec = self._planner(row).collected(row.conversation or [])
        if row.model is None:
            return spec
        own = named_model(row.model, self._dispatcher.models)
        allowed = frozenset((own, *(model.id for model in self._dispatcher.fallback)))
        return msgspec.structs.replace(spec, models=allowed, prefer=own)

    def plan(self, row: BatchRow) -> CallPlan:
        """Return the plan of a row's request, for a provider's own batch; rows that name no model share the client's.

        Raises:
            DelugeError: The row is no call, or its call cannot be sent.
        """
        spec = self.spec(row)
        models = self._dispatcher.models
        return spec.plan_for(spec.prefer or models[row.number % len(models)].id)

    def _planner(self, row: BatchRow) -> CallPlanner:
        options = CallOptions(row.tools or None, row.params, row.output, extra_body=row.extra_body)
        key = msgspec.json.encode(options)  # as JSON: in Python, 1 and True are equal
        planner = self._planners.get(key)
        if planner is None:
            if len(self._planners) >= _MOST_PLANNERS:
                self._planners.clear()
            planner = self._planners[key] = self._dispatcher.planner(options)
        return planner


def answer_rows(dispatcher: Dispatcher, journal: Journal, *, retry_failed: bool = False) -> JournalledRows:
    """Return the run that answers the rows of a batch file with the help of a journal.

    Args:
        dispatcher: What the calls of the client share.
        journal: Of this batch; rows that it has as done are not asked again.
        retry_failed: Ask rows again that failed for good.
    """
    # With several providers the scheduler goes to another one instead of waiting.
    is_one_provider = len({model.provider for model in dispatcher.rows.values()}) == 1
    return JournalledRows(
        lambda: (dispatcher.runner(), RowPlanner(dispatcher).spec),
        journal,
        most_at_once=dispatcher.options.max_concurrent_requests,
        max_attempts=dispatcher.options.max_attempts,
        retry_failed=retry_failed,
        gate=CircuitBreaker() if is_one_provider else None,
    )
