"""Routing: from a request to the plan of its answer."""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate

from lm_deluge.errors import APIError, BadRequestError, ConfigurationError, NotFoundError, ServerError
from lm_deluge.simulator.answers import Answers, PlannedAnswer, RoutedRequest
from lm_deluge.simulator.batches.jobs import Batches
from lm_deluge.simulator.endpoints.table import find_route
from lm_deluge.simulator.faults.answer import error_plan
from lm_deluge.simulator.faults.catalog import FaultSource
from lm_deluge.simulator.http import HttpError, Request
from lm_deluge.simulator.plan import WirePlan, build_plan
from lm_deluge.simulator.script import ScriptSource

__all__ = ["Router"]


class Router:
    """Finds the route of each request, and turns errors into answers of the API that the path belongs to."""

    def __init__(self, script: ScriptSource | None, faults: FaultSource, batches: Batches | None = None) -> None:
        self._answers = Answers(script, faults, batches)

    def plan(self, request: Request, *, number: int, port: int) -> PlannedAnswer:
        """Return the plan for the answer, and its fault. `number` counts the requests from 1."""
        match = find_route(request)
        routed = RoutedRequest(request, match.encoder, match.path_params, number, port)
        try:
            if match.route is None:
                plan, fault = _no_route(routed, match.methods), None
            else:
                plan, fault = match.route.handle(self._answers, routed)
        except APIError as error:
            plan, fault = _error(routed, error), None
        except ConfigurationError as error:  # the fault needs a library that is not installed
            plan, fault = _error(routed, _bad_request(str(error))), None
        except Exception as error:  # noqa: BLE001 - a fault of the simulator must not leave the client without an answer
            failure = ServerError(f"the simulator failed: {type(error).__name__}: {error}"[:300], status_code=500)
            plan, fault = _error(routed, failure), None
        return _with_usual_headers(plan, number), fault

    def plan_http_error(self, error: HttpError, *, port: int) -> WirePlan:
        """Return the plan for a request that cannot be parsed. The connection closes after the answer."""
        request = error.request or Request("", "", {}, {})
        routed = RoutedRequest(request, find_route(request).encoder, {}, 0, port)
        plan = _error(routed, _bad_request(error.message, error.status))
        return _with_usual_headers(replace(plan, after="close"), 0)


def _error(routed: RoutedRequest, error: APIError) -> WirePlan:
    return error_plan(build_plan(routed.context(), []), error)


def _no_route(routed: RoutedRequest, methods: tuple[str, ...]) -> WirePlan:
    method, path = routed.request.method, routed.request.path
    if not methods:
        message = f"Invalid URL ({method} {path})"
        return _error(routed, NotFoundError(message, status_code=404, type="invalid_request_error"))
    message = f"Not allowed to {method} on {path} (HINT: use {' or '.join(methods)})"
    return _error(routed, _bad_request(message, 405)).with_headers(allow=", ".join(methods))


def _bad_request(message: str, status: int = 400) -> BadRequestError:
    return BadRequestError(message, status_code=status, type="invalid_request_error")


def _with_usual_headers(plan: WirePlan, number: int) -> WirePlan:
    usual = {
        "date": formatdate(plan.context.now, usegmt=True),
        "server": "lm-deluge-simulator",
        "x-request-id": f"req_sim_{number:06}",
    }
    present = {name for name, _ in plan.headers}
    added = [(name, value) for name, value in usual.items() if name not in present]
    return replace(plan, headers=(*added, *plan.headers))
