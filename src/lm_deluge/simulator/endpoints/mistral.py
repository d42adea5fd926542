"""The routes of Mistral's API. Its paths are OpenAI's, so the simulator puts `/mistral` in front of them."""

from __future__ import annotations

from typing import Any

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.answers import RoutedRequest, check_model, model_names
from lm_deluge.simulator.endpoints.openai import model_row
from lm_deluge.simulator.endpoints.route import SimulatedApi, document_route, model_call_routes

__all__ = ["MISTRAL"]

_CHAT = find_encoder("mistral-chat")
_CAPABILITIES = {"completion_chat": True, "function_calling": True, "reasoning": True, "vision": True}


def _list_models(routed: RoutedRequest) -> dict[str, Any]:
    return {"object": "list", "data": [_model_row(name) for name in model_names()]}


def _show_model(routed: RoutedRequest) -> dict[str, Any]:
    return _model_row(check_model(routed.path_params["id"]))


def _model_row(name: str) -> dict[str, Any]:
    return {**model_row(name), "name": name, "capabilities": _CAPABILITIES, "aliases": [], "type": "base"}


MISTRAL = SimulatedApi(
    _CHAT,
    (
        *model_call_routes(_CHAT),
        document_route("GET", "/mistral/v1/models", _CHAT, _list_models),
        document_route("GET", "/mistral/v1/models/(?P<id>.+)", _CHAT, _show_model),
    ),
    paths=r"/mistral(?:/.*)?",
)
