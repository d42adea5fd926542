"""The routes of OpenAI's APIs and of the hosts that are compatible with them."""

from __future__ import annotations

import re
from typing import Any

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.answers import Answers, RoutedRequest, check_model, model_names
from lm_deluge.simulator.batches.openai import OPENAI_BATCH_ROUTES
from lm_deluge.simulator.endpoints.route import (
    SimulatedApi,
    SimulatedRoute,
    batch_routes,
    document_route,
    model_call_routes,
)

__all__ = ["OPENAI", "model_row"]

_CHAT = find_encoder("openai-chat")
_RESPONSES = find_encoder("openai-responses")

# With and without the version, because clients configure base URLs in both forms; Azure puts /openai in front.
_ROOT = "(?:/openai)?(?:/v1)?"


def model_row(name: str) -> dict[str, Any]:
    """Return the description of a model in OpenAI's format."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "lm-deluge"}


def _list_models(routed: RoutedRequest) -> dict[str, Any]:
    return {"object": "list", "data": [model_row(name) for name in model_names()]}


def _show_model(routed: RoutedRequest) -> dict[str, Any]:
    return model_row(check_model(routed.path_params["id"]))


OPENAI = SimulatedApi(
    _CHAT,
    (
        *model_call_routes(_CHAT),
        *model_call_routes(_RESPONSES),
        SimulatedRoute("GET", re.compile(rf"{_ROOT}/responses/(?P<id>[^/]+)"), _RESPONSES, Answers.resume),
        SimulatedRoute("POST", re.compile(rf"{_ROOT}/responses/(?P<id>[^/]+)/cancel"), _RESPONSES, Answers.cancel),
        *batch_routes(_CHAT, OPENAI_BATCH_ROUTES),
        document_route("GET", "(?:/v1)?/models", _CHAT, _list_models),
        document_route("GET", "(?:/v1)?/models/(?P<id>.+)", _CHAT, _show_model),
    ),
    paths=".*",  # the API of last resort
)
