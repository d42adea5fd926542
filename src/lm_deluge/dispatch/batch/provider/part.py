"""The two ends of a provider's batch: calls that are collected for one, and one that is at the provider."""

from __future__ import annotations

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.batch_api import BatchAPI, BatchState, custom_id
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.dispatch.batch.provider.client import BatchClient
from lm_deluge.dispatch.batch.provider.items import ItemFile
from lm_deluge.dispatch.journal.records import SubmittedBatch
from lm_deluge.wire.http import HttpRequest

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "BatchPart", "LiveBatch"]

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
_FRAME_BYTES = 4_096  # what stands around the items of a batch, at most


class BatchPart:
    """Calls that are collected for one batch.

    Args:
        plan: Of one of them: all are to the same model at the same place.
        api: Takes them.
        name: Ours of the batch.
        most: How many it may have, where that is less than what the API takes.

    Attributes:
        ids: Of the calls, in order.
        items: The calls, as the API wants them.
    """

    def __init__(self, plan: CallPlan, api: BatchAPI, name: str, most: int) -> None:
        self.plan = plan
        self.api = api
        self.name = name
        self.ids: list[str] = []
        self.items = ItemFile(api.separator)
        self._most = min(most, api.max_requests)

    def maybe_add(self, call_id: str, call: Call, request: HttpRequest) -> bool:
        """Add a call; return whether there was room for it."""
        item = self.api.encode_item(call, custom_id(self.name, len(self.ids)), request)
        size = self.items.size + len(self.api.separator) + len(item)
        if len(self.ids) >= self._most or size > self.api.max_bytes - _FRAME_BYTES:
            return False
        self.items.add(item)
        self.ids.append(call_id)
        return True


class LiveBatch:
    """A batch that the provider has, or may have: how to ask for it, and when next.

    Attributes:
        wait_s: Seconds until it is asked for.
    """

    def __init__(self, batch: SubmittedBatch, plan: CallPlan, api: BatchAPI, wait_s: float = 0.0) -> None:
        self.batch = batch
        self.plan = plan
        self.api = api
        self.client = BatchClient(plan)
        self.wait_s = wait_s
        self._delay_s = FIRST_WAIT_S

    @property
    def handle(self) -> str:
        """What the provider knows it by; empty where it has no such name."""
        return self.batch.handle or ""

    async def state(self, handle: str) -> BatchState:
        """Return how far the batch of a handle has come.

        Raises:
            DelugeError: The provider refuses, or no answer came.
        """
        return self.api.read_state((await self.client.ask(self.api.build_poll(self.plan.call, handle))).body)

    def call_of(self, index: int | None) -> str | None:
        """Return the id of the call that stands at a place in the batch; None where there is none."""
        return self.batch.ids[index] if index is not None and index < len(self.batch.ids) else None

    def put_off(self) -> None:
        """Ask later than the last time."""
        self._delay_s = self.wait_s = min(self._delay_s * 2, LONGEST_WAIT_S)
