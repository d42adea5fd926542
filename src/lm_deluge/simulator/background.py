"""Answers of background mode: they are kept, so that a client can take one up again, or end it.

https://platform.openai.com/docs/guides/background. The simulator writes an answer at once; its rest is sent in the
pace of any other stream.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, NotFoundError
from lm_deluge.events import Event
from lm_deluge.simulator.http import Request
from lm_deluge.simulator.plan import Site, WirePlan, build_plan

__all__ = ["BACKGROUND_PATHS", "KeptAnswers"]

# The API that has the mode, and the paths of its answers.
_API = "openai-responses"
_GET = re.compile(r"(?:/openai)?(?:/v1)?/responses/(?P<id>[^/]+)")
_CANCEL = re.compile(_GET.pattern + "/cancel")
BACKGROUND_PATHS: tuple[tuple[re.Pattern[str], str], ...] = ((_GET, "GET"), (_CANCEL, "POST"))

_MOST = 1_000


@dataclass(slots=True)
class _Kept:
    site: Site
    events: tuple[Event, ...]
    is_cancelled: bool = False


class KeptAnswers:
    """The last thousand answers that were asked for in background mode."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def keep(self, response_id: str, site: Site, events: Sequence[Event]) -> None:
        """Keep a healthy answer if it was asked for in background mode."""
        if site.encoder.name == _API and site.request.raw.get("background") is True:
            self._kept[response_id] = _Kept(site, tuple(events))
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)

    def resume(self, request: Request) -> WirePlan:
        """Return the answer, or as a stream its rest behind `starting_after`.

        Raises:
            NotFoundError: It was not kept.
            BadRequestError: It was cancelled.
        """
        kept = self._find(request, _GET)
        if kept.is_cancelled:
            raise BadRequestError("The response was cancelled.", status_code=400, type="invalid_request_error")
        is_streamed = request.query.get("stream") == "true"
        plan = build_plan(_asked(kept.site, is_streamed=is_streamed), kept.events)
        if not is_streamed:
            return plan
        after = request.query.get("starting_after", "")
        frames = tuple(plan.unwritten)
        return replace(plan, body=frames[int(after) + 1 if after.isdecimal() else 0 :], unwritten=())

    def cancel(self, request: Request) -> WirePlan:
        """End an answer.

        Raises:
            NotFoundError: It was not kept.
        """
        kept = self._find(request, _CANCEL)
        kept.is_cancelled = True
        document: dict[str, Any] = msgspec.json.decode(kept.site.encoder.encode_response(kept.events))
        plan = build_plan(_asked(kept.site, is_streamed=False), [])
        body = msgspec.json.encode({**document, "status": "cancelled", "output": [], "usage": None})
        return plan.with_document(200, "application/json", body)

    def _find(self, request: Request, pattern: re.Pattern[str]) -> _Kept:
        found = pattern.fullmatch(request.path)
        response_id = found["id"] if found else ""
        if response_id not in self._kept:
            raise NotFoundError(
                f"Response with id '{response_id[:100]}' not found.", status_code=404, type="invalid_request_error"
            )
        return self._kept[response_id]


def _asked(site: Site, *, is_streamed: bool) -> Site:
    request: ParsedRequest = msgspec.structs.replace(site.request, is_streamed=is_streamed)
    return replace(site, request=request)
