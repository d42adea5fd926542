"""A route: method, path and handler of one kind of request, and the API that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from lm_deluge.encoders.encoder import Encoder
from lm_deluge.simulator.answers import Answers, PlannedAnswer, RoutedRequest
from lm_deluge.simulator.batches.jobs import BatchHandler

__all__ = ["SimulatedApi", "SimulatedRoute", "batch_routes", "document_route", "model_call_route", "model_call_routes"]

RouteHandler: TypeAlias = Callable[[Answers, RoutedRequest], PlannedAnswer]


class SimulatedRoute(NamedTuple):
    """A route.

    Attributes:
        method: The HTTP method.
        pattern: Regular expression of the whole path.
        encoder: The encoder of the API that the path belongs to.
        handle: Plans the answer.
    """

    method: str
    pattern: re.Pattern[str]
    encoder: Encoder
    handle: RouteHandler


class SimulatedApi(NamedTuple):
    """The routes of an API.

    Attributes:
        encoder: The encoder that encodes the errors on paths without a route.
        routes: The routes. Two APIs may share a path.
        paths: Regular expression of the paths that belong to this API, with and without a route.
        marks: Names of headers and query parameters that only clients of this API send. They decide on a path that
            two APIs share.
    """

    encoder: Encoder
    routes: tuple[SimulatedRoute, ...]
    paths: str
    marks: tuple[str, ...] = ()


def model_call_route(encoder: Encoder, pattern: str, *, is_streamed: bool | None = None) -> SimulatedRoute:
    """Return the route of a model call. The group `model` of the pattern, if there is one, names the model."""

    def handle(answers: Answers, routed: RoutedRequest) -> PlannedAnswer:
        return answers.call_model(routed, is_streamed=is_streamed)

    return SimulatedRoute("POST", re.compile(pattern), encoder, handle)


def model_call_routes(encoder: Encoder) -> tuple[SimulatedRoute, ...]:
    """Return the routes of the model calls that the encoder lists."""
    return tuple(model_call_route(encoder, each.pattern, is_streamed=each.is_streamed) for each in encoder.routes)


def document_route(
    method: str, pattern: str, encoder: Encoder, content: Callable[[RoutedRequest], Any]
) -> SimulatedRoute:
    """Return the route of a JSON document; `content` returns what the document contains."""

    def handle(answers: Answers, routed: RoutedRequest) -> PlannedAnswer:
        return answers.document(routed, content(routed))

    return SimulatedRoute(method, re.compile(pattern), encoder, handle)


def batch_routes(encoder: Encoder, rows: Iterable[tuple[str, str, BatchHandler]]) -> tuple[SimulatedRoute, ...]:
    """Return the routes of a batch API from its methods, patterns and handlers."""
    return tuple(_batch_route(encoder, *row) for row in rows)


def _batch_route(encoder: Encoder, method: str, pattern: str, handler: BatchHandler) -> SimulatedRoute:
    def handle(answers: Answers, routed: RoutedRequest) -> PlannedAnswer:
        return answers.batch(routed, handler)

    return SimulatedRoute(method, re.compile(pattern), encoder, handle)
