"""Answers of background mode, stored so that a client can resume or cancel them.

See https://platform.openai.com/docs/guides/background. The simulator creates the whole answer at once; a resumed
stream is sent at the pace of any other stream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, NotFoundError
from lm_deluge.events import Event
from lm_deluge.simulator.http import Request
from lm_deluge.simulator.plan import AnswerContext, WirePlan, build_plan

__all__ = ["BackgroundAnswers"]

_API = "openai-responses"  # the wire API that has background mode
_MOST_STORED = 1_000  # more than a test keeps open at once; the memory of a server without end stays bounded


@dataclass(slots=True)
class _StoredAnswer:
    context: AnswerContext
    events: tuple[Event, ...]
    is_cancelled: bool = False


class BackgroundAnswers:
    """The last `_MOST_STORED` answers to requests in background mode."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, _StoredAnswer] = OrderedDict()

    def store(self, response_id: str, context: AnswerContext, events: Sequence[Event]) -> None:
        """Store an answer without a fault, if its request is in background mode."""
        if context.encoder.name == _API and context.request.raw.get("background") is True:
            self._answers[response_id] = _StoredAnswer(context, tuple(events))
            while len(self._answers) > _MOST_STORED:
                self._answers.popitem(last=False)

    def resume(self, response_id: str, request: Request) -> WirePlan:
        """Return the plan of a stored answer, or as a stream the plan of its frames after `starting_after`.

        Raises:
            NotFoundError: No answer with this id is stored.
            BadRequestError: The answer was cancelled.
        """
        answer = self._find(response_id)
        if answer.is_cancelled:
            raise BadRequestError("The response was cancelled.", status_code=400, type="invalid_request_error")
        is_streamed = request.query.get("stream") == "true"
        plan = build_plan(_context_for(answer.context, is_streamed=is_streamed), answer.events)
        if not is_streamed:
            return plan
        start = request.query_number("starting_after", -1) + 1
        return replace(plan, body=tuple(plan.lazy_frames)[start:], lazy_frames=())

    def cancel(self, response_id: str) -> WirePlan:
        """Cancel a stored answer; return the plan of the cancelled response object.

        Raises:
            NotFoundError: No answer with this id is stored.
        """
        answer = self._find(response_id)
        answer.is_cancelled = True
        document: dict[str, Any] = msgspec.json.decode(answer.context.encoder.encode_response(answer.events))
        plan = build_plan(_context_for(answer.context, is_streamed=False), [])
        body = msgspec.json.encode({**document, "status": "cancelled", "output": [], "usage": None})
        return plan.with_document(200, "application/json", body)

    def _find(self, response_id: str) -> _StoredAnswer:
        if response_id not in self._answers:
            raise NotFoundError(
                f"Response with id '{response_id[:100]}' not found.", status_code=404, type="invalid_request_error"
            )
        return self._answers[response_id]


def _context_for(context: AnswerContext, *, is_streamed: bool) -> AnswerContext:
    request: ParsedRequest = msgspec.structs.replace(context.request, is_streamed=is_streamed)
    return replace(context, request=request)
