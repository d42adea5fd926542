"""A provider's batch before and after it is submitted."""

from __future__ import annotations

from contextlib import aclosing

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.batch_api import BatchAPI, BatchState, custom_id, index_in
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.dispatch.batch.provider.client import BatchClient
from lm_deluge.dispatch.batch.provider.items import ItemFile
from lm_deluge.dispatch.journal.records import SubmittedBatch
from lm_deluge.errors import DelugeError
from lm_deluge.wire.http import HttpRequest

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "RESULTS_WAIT_S", "BatchPart", "LiveBatch"]

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Seconds before the first poll, and between polls at most; the wait doubles in between.

Short at first, since a small batch may be done soon; a poll per minute is little load for one that takes hours.
"""
RESULTS_WAIT_S = 600.0
"""Seconds that a batch which has ended may take to name its files of results, far above the seconds seen so far."""
_FRAME_BYTES = 4_096  # room for the multipart headers and the metadata around the items


class BatchPart:
    """Calls that are collected for one batch.

    Args:
        plan: The plan of one of the calls; all calls have the same model and base URL.
        api: The batch API.
        name: Our name of the batch.
        max_requests: How many calls the batch may have, if that is below the limit of the API.

    Attributes:
        ids: The ids of the calls, in order.
        items: The calls, encoded for the API.
        tries: How often the batch was submitted again although no other batch ended.
        refusal: The error of the last refused submission.
    """

    def __init__(self, plan: CallPlan, api: BatchAPI, name: str, max_requests: int) -> None:
        self.plan = plan
        self.api = api
        self.name = name
        self.ids: list[str] = []
        self.items = ItemFile(api.separator)
        self.tries = 0
        self.refusal = DelugeError("the batch was not submitted")
        self._max_requests = min(max_requests, api.max_requests)

    def maybe_add(self, call_id: str, call: Call, request: HttpRequest) -> bool:
        """Add a call; return False, and add nothing, if the batch is full."""
        item = self.api.encode_item(call, custom_id(self.name, len(self.ids)), request)
        size = self.items.size + len(self.api.separator) + len(item)
        if len(self.ids) >= self._max_requests or size > self.api.max_bytes - _FRAME_BYTES:
            return False
        self.items.add(item)
        self.ids.append(call_id)
        return True


class LiveBatch:
    """A submitted batch, which the provider has or may have.

    Attributes:
        wait_s: Seconds until the next poll.
        part: The encoded calls, as long as the provider may refuse the batch because its queue is full. None after the
            provider has accepted it, and if an earlier run's calls no longer fit into one batch.
    """

    def __init__(
        self,
        batch: SubmittedBatch,
        plan: CallPlan,
        api: BatchAPI,
        wait_s: float = 0.0,
        part: BatchPart | None = None,
    ) -> None:
        self.batch = batch
        self.plan = plan
        self.api = api
        self.client = BatchClient(plan)
        self.wait_s = wait_s
        self.part = part
        self._delay_s = FIRST_WAIT_S
        self._ended_at: float | None = None

    @property
    def handle(self) -> str:
        """The provider's name of the batch; empty if there is none."""
        return self.batch.handle or ""

    async def state(self, handle: str) -> BatchState:
        """Return the state of the batch with this handle.

        Raises:
            DelugeError: The provider refused or did not answer.
        """
        return self.api.read_state((await self.client.ask(self.api.build_poll(self.plan.call, handle))).body)

    async def has_our_first_result(self, state: BatchState) -> bool:
        """Whether the first result of a batch that has ended is that of a call of this batch.

        Raises:
            DelugeError: The provider refused or did not answer.
        """
        for request in self.api.build_results(self.plan.call, state):
            async with aclosing(self.client.lines(request)) as reads:
                async for lines in reads:
                    return index_in(self.batch.name, self.api.read_result(lines[0]).custom_id) is not None
        return False

    def call_of(self, index: int | None) -> str | None:
        """Return the id of the call at an index of the batch; None if there is none."""
        return self.batch.ids[index] if index is not None and index < len(self.batch.ids) else None

    def keep(self, call_id: str, plan: CallPlan) -> None:
        """Encode a call of an earlier run's batch again, to submit it again if the provider's queue is full."""
        if self.part is None:
            return
        call = msgspec.structs.replace(plan.call, is_streamed=False)
        try:
            is_kept = self.part.maybe_add(call_id, call, plan.adapter.build_request(call))
        except Exception:  # noqa: BLE001 - the provider has the batch; only its refusal would need the call
            is_kept = False
        if not is_kept:
            self.release()

    def release(self) -> None:
        """Delete the encoded calls."""
        if self.part is not None:
            self.part.items.close()
            self.part = None

    def waits_for_results(self, state: BatchState, now: float) -> bool:
        """Whether a batch that has ended is polled on, since the provider has not named all its results yet.

        Args:
            state: The state of the batch.
            now: The present time in seconds.
        """
        if state.is_complete:
            return False
        if self._ended_at is None:
            self._ended_at = now
        return now - self._ended_at < RESULTS_WAIT_S

    def put_off(self) -> None:
        """Double the wait until the next poll, up to the longest."""
        self._delay_s = self.wait_s = min(self._delay_s * 2, LONGEST_WAIT_S)
