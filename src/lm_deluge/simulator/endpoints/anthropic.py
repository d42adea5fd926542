"""The routes of Anthropic's API, also on Google's Vertex AI.

The paths of models are OpenAI's: the header `anthropic-version`, which Anthropic requires, selects Anthropic's format.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.answers import RoutedRequest, check_model, model_names
from lm_deluge.simulator.batches.anthropic import ANTHROPIC_BATCH_ROUTES
from lm_deluge.simulator.batches.jobs import parsed_object
from lm_deluge.simulator.endpoints.route import SimulatedApi, batch_routes, document_route, model_call_routes
from lm_deluge.simulator.input_tokens import count_input_tokens

__all__ = ["ANTHROPIC"]

_MESSAGES = find_encoder("anthropic-messages")
_VERTEX = "(?:.*/publishers/anthropic)?/models"


def _count_tokens(routed: RoutedRequest) -> dict[str, Any]:
    # https://platform.claude.com/docs/en/api/messages/count_tokens: a message without its token limit.
    body = msgspec.json.encode({"max_tokens": 1, **parsed_object(routed.request.body)})
    return {"input_tokens": count_input_tokens(_MESSAGES.parse_request(body))}


def _list_models(routed: RoutedRequest) -> dict[str, Any]:
    names = model_names()
    after = routed.request.query.get("after_id")
    rest = names[names.index(after) + 1 :] if after in names else names
    shown = rest[: routed.request.query_number("limit", 20)]
    ends = {"first_id": shown[0] if shown else None, "last_id": shown[-1] if shown else None}
    return {"data": [_model_row(name) for name in shown], "has_more": len(rest) > len(shown), **ends}


def _show_model(routed: RoutedRequest) -> dict[str, Any]:
    return _model_row(check_model(routed.path_params["id"]))


def _model_row(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",  # documented for an unknown date
        "lifecycle": "active",
    }


ANTHROPIC = SimulatedApi(
    _MESSAGES,
    (
        document_route("POST", "(?:/v1)?/messages/count_tokens", _MESSAGES, _count_tokens),
        # https://docs.cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/count-tokens
        document_route("POST", f"{_VERTEX}/count-tokens:rawPredict", _MESSAGES, _count_tokens),
        *model_call_routes(_MESSAGES),
        *batch_routes(_MESSAGES, ANTHROPIC_BATCH_ROUTES),
        document_route("GET", "(?:/v1)?/models", _MESSAGES, _list_models),
        document_route("GET", "(?:/v1)?/models/(?P<id>[^:]+)", _MESSAGES, _show_model),
    ),
    paths=r"(?:/v1)?/messages(?:/.*)?|/v1/complete|.*/publishers/anthropic(?:/.*)?",
    marks=("anthropic-version",),
)
