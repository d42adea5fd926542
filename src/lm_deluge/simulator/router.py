"""From a request to the plan of its answer."""

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
from lm_deluge.simulator.background import BACKGROUND_PATHS, KeptAnswers
from lm_deluge.simulator.batches.jobs import Batches, BatchStore
from lm_deluge.simulator.batches.routes import batch_encoder, find_batch_route
from lm_deluge.simulator.faults.answer import refuse
from lm_deluge.simulator.faults.catalog import FAULTS, Fault, FaultQueue, FaultSource
from lm_deluge.simulator.http import HttpError, Request
from lm_deluge.simulator.plan import Site, WirePlan, build_plan
from lm_deluge.simulator.script import Scripts, ScriptSource

__all__ = ["Router"]

Planned: TypeAlias = tuple[WirePlan, Fault | None]

_HOST = "127.0.0.1"
_MODEL = "simulator"
_FAULT_HEADER = "x-simulator-fault"

_ROUTES: list[tuple[re.Pattern[str], Endpoint, Encoder]] = [
    (re.compile(route.pattern), route, encoder) for encoder in list_encoders() for route in encoder.routes
]
_DEFAULT = find_encoder("openai-chat")  # whose words are spoken on a path that is nobody's
_MODEL_PATHS = ("/v1/models", "/models")

_NO_REQUEST = ParsedRequest(model=_MODEL, conversation=Conversation())


class Router:
    """Decides what each request is answered with. It sends nothing."""

    def __init__(self, script: ScriptSource | None, faults: FaultSource, batches: Batches | None = None) -> None:
        self._scripts = Scripts(script)
        self._faults = FaultQueue(faults)
        self._kept = KeptAnswers()
        self._batches = BatchStore(batches or Batches(), self._answer_in_batch)
        self._batched = 0

    def plan(self, request: Request, *, number: int, port: int) -> Planned:
        """Return the plan for the request of that number, and the fault that is in it."""
        fault: Fault | None = None
        try:
            plan, fault = _find_route(request)(self, request, number, port)
        except APIError as error:
            plan = refuse(build_plan(_site(request, port), []), error)
        except ConfigurationError as error:  # a fault that needs a library that is not there
            plan = refuse(build_plan(_site(request, port), []), _bad_request(str(error)))
        return _with_usual_headers(plan, number), fault

    def plan_refusal(self, error: HttpError, *, port: int) -> WirePlan:
        """Return the plan for a request that could not be read. The connection ends with it."""
        site = _site(Request("", "", {}, {}), port)
        refusal = refuse(build_plan(site, []), _bad_request(error.message, error.status))
        return _with_usual_headers(replace(refusal, after="close"), 0)

    def chat(self, request: Request, number: int, port: int) -> Planned:
        """Answer a call of a model."""
        encoder, asked = _speaks(request)
        parsed = encoder.parse_request(request.body, **asked)
        fault = self._choose_fault(request, parsed)
        site = _site(request, port, parsed)
        if fault is None:
            return build_plan(site, self._play_script(site, number)), None
        fault.check_fit(encoder)
        if fault.replaces(site):
            return fault.edit_plan(build_plan(site, [])), fault
        events = fault.edit_events(self._play_script(site, number), site)
        return fault.edit_plan(build_plan(site, events)), fault

    def resume(self, request: Request, number: int, port: int) -> Planned:
        """Give an answer of background mode, or the rest of it."""
        plan = self._kept.resume(request)
        fault = self._choose_fault(request, plan.site.request)
        return (plan, None) if fault is None else (fault.edit_plan(plan), fault)

    def cancel(self, request: Request, number: int, port: int) -> Planned:
        """End an answer of background mode."""
        return self._kept.cancel(request), None

    def batch(self, request: Request, number: int, port: int) -> Planned:
        """Answer what is asked of a batch API."""
        route = find_batch_route(request)
        assert route is not None  # noqa: S101 - or it would not have come here
        fault = self._choose_fault(request, _NO_REQUEST)
        plan = _document(request, port, {})
        if fault is not None and fault.replaces(plan.site):
            return fault.edit_plan(plan), fault
        reply = route.handler(self._batches, request, route.named, f"http://{_HOST}:{port}")
        plan = replace(plan.with_document(200, reply.content_type, reply.data), headers=(*plan.headers, *reply.headers))
        return (plan, None) if fault is None else (fault.edit_plan(plan), fault)

    def _answer_in_batch(self, api: str, body: bytes, asked: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and body of the answer to a request in a batch."""
        encoder = find_encoder(api)
        self._batched += 1
        try:
            parsed = encoder.parse_request(body, **asked)
            site = Site(encoder, parsed, 0, "", time.time())
            return 200, encoder.encode_response(self._play_script(site, self._batched), created=int(site.now))
        except APIError as error:
            return error.status_code or 500, encoder.encode_error(error)

    def list_models(self, request: Request, number: int, port: int) -> Planned:
        """List the models: one that is healthy, and one for each fault."""
        rows = [_model_row(name) for name in _model_names()]
        return _document(request, port, {"object": "list", "data": rows}), None

    def show_model(self, request: Request, number: int, port: int) -> Planned:
        """Describe one model."""
        name = request.path.partition("models/")[2]
        if name not in _model_names():
            raise _no_model(name)
        return _document(request, port, _model_row(name)), None

    def _choose_fault(self, request: Request, parsed: ParsedRequest) -> Fault | None:
        asked = request.query.get("fault") or request.headers.get(_FAULT_HEADER)
        prefix, _, named = parsed.model.partition("/")
        if asked is None and (prefix != _MODEL or not named):
            return self._faults.take()
        try:
            return Fault.parse(asked or named)
        except ConfigurationError as error:
            raise (_no_model(parsed.model) if asked is None else _bad_request(error.message)) from error

    def _play_script(self, site: Site, number: int) -> list[Event]:
        parsed, response_id = site.request, f"{site.encoder.id_prefix}sim-{number:06}"
        try:
            events = self._scripts.choose(parsed).play(parsed, response_id=response_id)
        except APIError:
            raise
        except Exception as error:
            # A script is the user's code: the client is told what it raised, and the server lives on.
            raise ServerError(f"the script raised {type(error).__name__}: {error}", status_code=500) from error
        self._kept.keep(response_id, site, events)
        return events


_Handler: TypeAlias = Callable[[Router, Request, int, int], Planned]


def _speaks(request: Request) -> tuple[Encoder, dict[str, Any]]:
    """Return the wire API that a path speaks, and what it says of the request."""
    for pattern, route, encoder in _ROUTES:
        found = pattern.fullmatch(request.path)
        if found:
            named = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
            return encoder, {**named, "is_streamed": route.is_streamed}
    batch = batch_encoder(request)
    return _DEFAULT if batch is None else find_encoder(batch), {}


def _find_route(request: Request) -> _Handler:
    path = request.path
    if find_batch_route(request) is not None:
        return Router.batch
    method, handler = "", Router.chat
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


def _site(request: Request, port: int, parsed: ParsedRequest = _NO_REQUEST) -> Site:
    return Site(_speaks(request)[0], parsed, port, request.path, time.time())


def _document(request: Request, port: int, content: Any) -> WirePlan:
    plan = build_plan(_site(request, port), [])
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
        "date": formatdate(plan.site.now, usegmt=True),
        "server": "lm-deluge-simulator",
        "x-request-id": f"req_sim_{number:06}",
    }
    named = {name for name, _ in plan.headers}
    added = [(name, value) for name, value in usual.items() if name not in named]
    return replace(plan, headers=(*added, *plan.headers))
