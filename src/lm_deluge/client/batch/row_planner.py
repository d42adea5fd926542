"""Build the calls of the rows of a batch file: the options of a row override those of the client."""

from __future__ import annotations

import msgspec

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.batch.journaled import JournaledRows, named_model
from lm_deluge.client.call_options import NO_OPTIONS, CallOptions
from lm_deluge.client.dispatcher import CallPlanner, Dispatcher
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.journal.journal import Journal

__all__ = ["RowPlanner", "answer_rows"]

# The rows of a file mostly have the same options. If each row has its own, the planners must not fill the memory.
_MAX_PLANNERS = 64


class RowPlanner:
    """Builds the calls of the rows of a batch file.

    Args:
        dispatcher: The dispatcher of the client.
        options: The options of all rows.
    """

    def __init__(self, dispatcher: Dispatcher, options: CallOptions = NO_OPTIONS) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._planners: dict[bytes, CallPlanner] = {}

    def spec(self, row: BatchRow) -> CallSpec:
        """Return the call of a row.

        Raises:
            DelugeError: The row could not be read, or its call cannot be sent.
        """
        if row.error is not None:
            raise row.error
        spec = self._planner(row).collected(row.conversation or [])
        if row.model is None:
            return spec
        own = named_model(row.model, self._dispatcher.models)
        allowed = frozenset((own, *(model.id for model in self._dispatcher.fallback)))
        if spec.models is not None:  # the prompt is too long for the others
            allowed = allowed & spec.models or spec.models
        return msgspec.structs.replace(spec, models=allowed, prefer=own)

    def plan(self, row: BatchRow) -> CallPlan:
        """Return the plan of a row's request. Rows that name no model use the models of the client in turn.

        Raises:
            DelugeError: The row could not be read, or its call cannot be sent.
        """
        spec = self.spec(row)
        models = [model.id for model in self._dispatcher.models if spec.models is None or model.id in spec.models]
        if spec.prefer in models or not models:
            return spec.plan_for(spec.prefer or self._dispatcher.models[0].id)
        return spec.plan_for(models[row.number % len(models)])

    def _planner(self, row: BatchRow) -> CallPlanner:
        # As JSON: in Python, 1 and True are equal.
        key = msgspec.json.encode((row.tools, row.params, row.output, row.extra_body))
        planner = self._planners.get(key)
        if planner is None:
            if len(self._planners) >= _MAX_PLANNERS:
                self._planners.clear()
            options = self._options._replace(
                tools=row.tools or self._options.tools,
                sampling_params=row.params,
                output=self._options.output if row.output is None else row.output,
                extra_body=row.extra_body,
            )
            planner = self._planners[key] = self._dispatcher.planner(options)
        return planner


def answer_rows(
    dispatcher: Dispatcher, journal: Journal, *, retry_failed: bool = False, options: CallOptions = NO_OPTIONS
) -> JournaledRows:
    """Return an object that answers the rows of a batch file, with a journal.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal of the batch; rows that are done in it are not sent again.
        retry_failed: Whether rows that failed for good are sent again.
        options: The options of all rows: the `output` of those that have none, and how often it is asked for again.

    Example:
        >>> async for row, response in answer_rows(client.dispatcher, journal).answers(read_rows(path)):
        ...     print(row.id, response.completion)
    """
    return JournaledRows(
        lambda: (dispatcher.runner(), RowPlanner(dispatcher, options).spec),
        journal,
        most_at_once=dispatcher.options.max_concurrent_requests,
        max_attempts=dispatcher.options.max_attempts + options.max_output_retries,
        retry_failed=retry_failed,
    )
