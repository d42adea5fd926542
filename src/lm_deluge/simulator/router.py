"""Routing: from a request to the plan of its answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any, TypeAlias
from urllib.parse import unquote

import msgspec

from lm_deluge.encoders.catalog import find_encoder, list_encoders
from lm_deluge.encoders.encoder import Encoder, Endpoint, ParsedRequest
from lm_deluge.errors import APIError, BadRequestError, ConfigurationError, NotFoundError, ServerError
from lm_deluge.events import Event
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.simulator.background import BACKGROUND_PATHS, BackgroundAnswers
from lm_deluge.simulator.batches.jobs import Batches, BatchStore
from lm_deluge.simulator.batches.routes import encoder_of_batch_path, find_batch_route
from lm_deluge.simulator.faults.answer import error_plan
from lm_deluge.simulator.faults.catalog import FAULTS, Fault, FaultQueue, FaultSource
from lm_deluge.simulator.http import HttpError, Request
from lm_deluge.simulator.plan import AnswerContext, WirePlan, build_plan
from lm_deluge.simulator.script import Scripts, ScriptSource

__all__ = ["Router"]

PlannedAnswer: TypeAlias = tuple[WirePlan, Fault | None]
"""The plan of an answer, and the fault that edited it."""

_HOST = "127.0.0.1"
_MODEL = "simulator"
_FAULT_HEADER = "x-simulator-fault"

_ROUTES: list[tuple[re.Pattern[str], Endpoint, Encoder]] = [
    (re.compile(route.pattern), route, encoder) for encoder in list_encoders() for route in encoder.routes
]
_DEFAULT_ENCODER = find_encoder("openai-chat")  # for errors on a path of no wire API
_MODEL_PATHS = ("/v1/models", "/models")

_EMPTY_REQUEST = ParsedRequest(model=_MODEL, conversation=Conversation())


class Router:
    """Chooses the answer of each request. It plans answers and does not send them."""

    def __init__(self, script: ScriptSource | None, faults: FaultSource, batches: Batches | None = None) -> None:
        self._scripts = Scripts(script)
        self._faults = FaultQueue(faults)
        self._background = BackgroundAnswers()
        self._batches = BatchStore(batches or Batches(), self._answer_in_batch)
        self._batch_requests = 0

    def plan(self, request: Request, *, number: int, port: int) -> PlannedAnswer:
        """Return the plan for the answer, and its fault. `number` counts the requests from 1."""
        fault: Fault | None = None
        try:
            plan, fault = _find_route(request)(self, request, number, port)
        except APIError as error:
            plan = error_plan(build_plan(_context(request, port), []), error)
        except ConfigurationError as error:  # the fault needs a library that is not installed
            plan = error_plan(build_plan(_context(request, port), []), _bad_request(str(error)))
        return _with_usual_headers(plan, number), fault

    def plan_http_error(self, error: HttpError, *, port: int) -> WirePlan:
        """Return the plan for a request that cannot be parsed. The connection closes after the answer."""
        context = _context(Request("", "", {}, {}), port)
        plan = error_plan(build_plan(context, []), _bad_request(error.message, error.status))
        return _with_usual_headers(replace(plan, after="close"), 0)

    def call_model(self, request: Request, number: int, port: int) -> PlannedAnswer:
        """Plan the answer to a model call."""
        encoder, path_params = _match_path(request)
        parsed = encoder.parse_request(request.body, **path_params)
        fault = self._choose_fault(request, parsed)
        context = _context(request, port, parsed)
        if fault is None:
            return build_plan(context, self._play_script(context, number)), None
        fault.check_fit(encoder)
        if fault.replaces(context):
            return fault.edit_plan(build_plan(context, [])), fault
        events = fault.edit_events(self._play_script(context, number), context)
        return fault.edit_plan(build_plan(context, events)), fault

    def resume(self, request: Request, number: int, port: int) -> PlannedAnswer:
        """Plan a stored answer of background mode, or its remaining frames."""
        plan = self._background.resume(request)
        fault = self._choose_fault(request, plan.context.request)
        return (plan, None) if fault is None else (fault.edit_plan(plan), fault)

    def cancel(self, request: Request, number: int, port: int) -> PlannedAnswer:
        """Cancel a stored answer of background mode."""
        return self._background.cancel(request), None

    def batch(self, request: Request, number: int, port: int) -> PlannedAnswer:
        """Plan the answer to a request to a batch API."""
        route = find_batch_route(request)
        assert route is not None  # noqa: S101 - `_find_route` has checked the path
        fault = self._choose_fault(request, _EMPTY_REQUEST)
        plan = _document(request, port, {})
        if fault is not None and fault.replaces(plan.context):
            return fault.edit_plan(plan), fault
        reply = route.handler(self._batches, request, route.path_params, f"http://{_HOST}:{port}")
        plan = replace(plan.with_document(200, reply.content_type, reply.data), headers=(*plan.headers, *reply.headers))
        return (plan, None) if fault is None else (fault.edit_plan(plan), fault)

    def _answer_in_batch(self, api: str, body: bytes, path_params: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and body of the answer to a request in a batch."""
        encoder = find_encoder(api)
        self._batch_requests += 1
        try:
            parsed = encoder.parse_request(body, **path_params)
            context = AnswerContext(encoder, parsed, 0, "", time.time())
            return 200, encoder.encode_response(
                self._play_script(context, self._batch_requests), created=int(context.now)
            )
        except APIError as error:
            return error.status_code or 500, encoder.encode_error(error)

    def list_models(self, request: Request, number: int, port: int) -> PlannedAnswer:
        """Plan the list of models: `simulator`, and one model for each fault."""
        rows = [_model_row(name) for name in _model_names()]
        return _document(request, port, {"object": "list", "data": rows}), None

    def show_model(self, request: Request, number: int, port: int) -> PlannedAnswer:
        """Plan the description of one model."""
        name = request.path.partition("models/")[2]
        if name not in _model_names():
            raise _no_model(name)
        return _document(request, port, _model_row(name)), None

    def _choose_fault(self, request: Request, parsed: ParsedRequest) -> Fault | None:
        requested = request.query.get("fault") or request.headers.get(_FAULT_HEADER)
        prefix, _, fault_of_model = parsed.model.partition("/")
        if requested is None and (prefix != _MODEL or not fault_of_model):
            return self._faults.take()
        try:
            return Fault.parse(requested or fault_of_model)
        except ConfigurationError as error:
            raise (_no_model(parsed.model) if requested is None else _bad_request(error.message)) from error

    def _play_script(self, context: AnswerContext, number: int) -> list[Event]:
        parsed, response_id = context.request, f"{context.encoder.id_prefix}sim-{number:06}"
        try:
            events = self._scripts.choose(parsed).play(parsed, response_id=response_id)
        except APIError:
            raise
        except Exception as error:
            # A script is the user's code: report its exception to the client and keep the server running.
            raise ServerError(f"the script raised {type(error).__name__}: {error}", status_code=500) from error
        self._background.store(response_id, context, events)
        return events


_Handler: TypeAlias = Callable[[Router, Request, int, int], PlannedAnswer]


def _match_path(request: Request) -> tuple[Encoder, dict[str, Any]]:
    """Return the encoder for a path, and the parameters of the request that the path contains."""
    for pattern, route, encoder in _ROUTES:
        found = pattern.fullmatch(request.path)
        if found:
            path_params = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
            return encoder, {**path_params, "is_streamed": route.is_streamed}
    batch = encoder_of_batch_path(request)
    return _DEFAULT_ENCODER if batch is None else find_encoder(batch), {}


def _find_route(request: Request) -> _Handler:
    path = request.path
    if find_batch_route(request) is not None:
        return Router.batch
    method, handler = "", Router.call_model
    if any(pattern.fullmatch(path) for pattern, *_ in _ROUTES):
        method = "POST"
    elif any(pattern.fullmatch(path) for pattern, _ in BACKGROUND_PATHS):
        method = next(each for pattern, each in BACKGROUND_PATHS if pattern.fullmatch(path))
        handler = Router.resume if method == "GET" else Router.cancel
    elif path in _MODEL_PATHS:
        method, handler = "GET", Router.list_models
    elif any(path.startswith(f"{each}/") for each in _MODEL_PATHS):
        method, handler = "GET", Router.show_model
    if not method:
        raise NotFoundError(f"Invalid URL ({request.method} {path})", status_code=404, type="invalid_request_error")
    if method != request.method:
        raise _bad_request(f"Not allowed to {request.method} on {path} (HINT: use {method})", 405)
    return handler


def _context(request: Request, port: int, parsed: ParsedRequest = _EMPTY_REQUEST) -> AnswerContext:
    return AnswerContext(_match_path(request)[0], parsed, port, request.path, time.time())


def _document(request: Request, port: int, content: Any) -> WirePlan:
    plan = build_plan(_context(request, port), [])
    return plan.with_document(200, "application/json", msgspec.json.encode(content))


def _model_names() -> list[str]:
    return [_MODEL, *(f"{_MODEL}/{name}" for name in FAULTS)]


def _model_row(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "lm-deluge"}


def _bad_request(message: str, status: int = 400) -> BadRequestError:
    return BadRequestError(message, status_code=status, type="invalid_request_error")


def _no_model(name: str) -> NotFoundError:
    return NotFoundError(f"The model `{name[:100]}` does not exist or you do not have access to it.", status_code=404)


def _with_usual_headers(plan: WirePlan, number: int) -> WirePlan:
    usual = {
        "date": formatdate(plan.context.now, usegmt=True),
        "server": "lm-deluge-simulator",
        "x-request-id": f"req_sim_{number:06}",
    }
    present = {name for name, _ in plan.headers}
    added = [(name, value) for name, value in usual.items() if name not in present]
    return replace(plan, headers=(*added, *plan.headers))
