"""The state of a simulator: scripts, faults, stored answers and batches; it plans the answer to each routed request."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.encoders.encoder import Encoder, ParsedRequest
from lm_deluge.errors import APIError, BadRequestError, ConfigurationError, NotFoundError, ServerError
from lm_deluge.events import Event
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.simulator.background import BackgroundAnswers
from lm_deluge.simulator.batches.jobs import Batches, BatchHandler, BatchStore
from lm_deluge.simulator.choices import with_choices
from lm_deluge.simulator.faults.catalog import FAULTS, Fault, FaultQueue, FaultSource
from lm_deluge.simulator.http import Request
from lm_deluge.simulator.plan import AnswerContext, WirePlan, build_plan
from lm_deluge.simulator.refusals import check_request, requires_signatures
from lm_deluge.simulator.script import Scripts, ScriptSource
from lm_deluge.simulator.signatures import sign_reasoning

__all__ = ["Answers", "PlannedAnswer", "RoutedRequest", "check_model", "model_names", "plan_document"]

PlannedAnswer: TypeAlias = tuple[WirePlan, Fault | None]
"""The plan of an answer, and the fault that edited it."""

_HOST = "127.0.0.1"
_MODEL = "simulator"
_FAULT_HEADER = "x-simulator-fault"
_EMPTY_REQUEST = ParsedRequest(model=_MODEL, conversation=Conversation())


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """A request together with its route.

    Attributes:
        encoder: The encoder of the API that the path belongs to, which also encodes the errors.
        path_params: The percent-decoded values of the named groups of the route's pattern.
        number: Number of the request, counted from 1.
        port: The port that the simulator listens on.
    """

    request: Request
    encoder: Encoder
    path_params: dict[str, str]
    number: int
    port: int

    def context(self, parsed: ParsedRequest = _EMPTY_REQUEST) -> AnswerContext:
        """Return the context of the answer to `parsed`; without an argument, of an answer that is a document."""
        encoder = with_choices(self.encoder, parsed)
        return AnswerContext(encoder, parsed, self.port, self.request.path, time.time())


class Answers:
    """Plans the answers to routed requests. It does not send them."""

    def __init__(self, script: ScriptSource | None, faults: FaultSource, batches: Batches | None = None) -> None:
        self._scripts = Scripts(script)
        self._faults = FaultQueue(faults)
        self._background = BackgroundAnswers()
        self._batches = BatchStore(batches or Batches(), self._answer_in_batch)
        self._batch_requests = 0

    def call_model(self, routed: RoutedRequest, *, is_streamed: bool | None) -> PlannedAnswer:
        """Plan the answer to a model call; `is_streamed` is None if the body decides."""
        encoder = routed.encoder
        parsed = encoder.parse_request(routed.request.body, **routed.path_params, is_streamed=is_streamed)
        check_request(encoder.name, parsed)
        fault = self._choose_fault(routed.request, parsed)
        context = routed.context(parsed)
        if fault is None:
            return build_plan(context, self._play_script(context, routed.number)), None
        fault.check_fit(encoder)
        if fault.replaces(context):
            return fault.edit_plan(build_plan(context, [])), fault
        events = fault.edit_events(self._play_script(context, routed.number), context)
        return fault.edit_plan(build_plan(context, events)), fault

    def resume(self, routed: RoutedRequest) -> PlannedAnswer:
        """Plan a stored answer of background mode, or its remaining frames."""
        plan = self._background.resume(routed.path_params["id"], routed.request)
        fault = self._choose_fault(routed.request, plan.context.request)
        return (plan, None) if fault is None else (fault.edit_plan(plan), fault)

    def cancel(self, routed: RoutedRequest) -> PlannedAnswer:
        """Cancel a stored answer of background mode."""
        return self._background.cancel(routed.path_params["id"]), None

    def batch(self, routed: RoutedRequest, handler: BatchHandler) -> PlannedAnswer:
        """Plan the answer to a request to a batch API."""
        fault = self._choose_fault(routed.request, _EMPTY_REQUEST)
        plan = plan_document(routed, {})
        if fault is not None and fault.replaces(plan.context):
            return fault.edit_plan(plan), fault
        reply = handler(self._batches, routed.request, routed.path_params, f"http://{_HOST}:{routed.port}")
        plan = replace(plan.with_document(200, reply.content_type, reply.data), headers=(*plan.headers, *reply.headers))
        return (plan, None) if fault is None else (fault.edit_plan(plan), fault)

    def document(self, routed: RoutedRequest, content: Any) -> PlannedAnswer:
        """Plan an answer that is a JSON document; only a fault that the request itself chooses applies to it."""
        plan, fault = plan_document(routed, content), None
        if _requested_fault(routed.request) is not None:
            fault = self._choose_fault(routed.request, _EMPTY_REQUEST)
        return (plan, None) if fault is None else (fault.edit_plan(plan), fault)

    def _answer_in_batch(self, api: str, body: bytes, path_params: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and body of the answer to a request in a batch."""
        encoder = find_encoder(api)
        self._batch_requests += 1
        try:
            parsed = encoder.parse_request(body, **path_params)
            check_request(api, parsed)
            context = AnswerContext(with_choices(encoder, parsed), parsed, 0, "", time.time())
            events = self._play_script(context, self._batch_requests)
            return 200, context.encoder.encode_response(events, created=int(context.now))
        except APIError as error:
            return error.status_code or 500, encoder.encode_error(error)

    def _choose_fault(self, request: Request, parsed: ParsedRequest) -> Fault | None:
        requested = _requested_fault(request)
        prefix, _, fault_of_model = parsed.model.partition("/")
        if requested is None and (prefix != _MODEL or not fault_of_model):
            return self._faults.take()
        try:
            return Fault.parse(requested or fault_of_model)
        except ConfigurationError as error:
            if requested is None:
                raise _no_model(parsed.model) from error
            raise BadRequestError(error.message, status_code=400, type="invalid_request_error") from error

    def _play_script(self, context: AnswerContext, number: int) -> list[Event]:
        parsed, response_id = context.request, f"{context.encoder.id_prefix}sim-{number:06}"
        try:
            script = self._scripts.choose(parsed)
            events = script.play(parsed, response_id=response_id)
        except APIError:
            raise
        except Exception as error:
            # A script is the user's code: report its exception to the client and keep the server running.
            raise ServerError(f"the script raised {type(error).__name__}: {error}", status_code=500) from error
        if not script.events:
            signs_calls = context.encoder.name == "gemini-generate" and requires_signatures(parsed.model)
            events = sign_reasoning(context.encoder.name, events, signs_calls=signs_calls)
        self._background.store(response_id, context, events)
        return events


def plan_document(routed: RoutedRequest, content: Any) -> WirePlan:
    """Return the plan of a JSON document with status 200."""
    plan = build_plan(routed.context(), [])
    return plan.with_document(200, "application/json", msgspec.json.encode(content))


def model_names() -> list[str]:
    """Return the models in the lists of models: `simulator`, and one for each fault."""
    return [_MODEL, *(f"{_MODEL}/{name}" for name in FAULTS)]


def check_model(name: str) -> str:
    """Return the name of a model if the lists of models contain it.

    Raises:
        NotFoundError: No list contains it.
    """
    if name not in model_names():
        raise _no_model(name)
    return name


def _requested_fault(request: Request) -> str | None:
    return request.query.get("fault") or request.headers.get(_FAULT_HEADER)


def _no_model(name: str) -> NotFoundError:
    return NotFoundError(f"The model `{name[:100]}` does not exist or you do not have access to it.", status_code=404)
