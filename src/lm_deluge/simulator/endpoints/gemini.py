"""The routes of Google's Gemini APIs, also on Vertex AI."""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import NotFoundError
from lm_deluge.simulator.answers import RoutedRequest, check_model, model_names
from lm_deluge.simulator.batches.gemini import GEMINI_BATCH_ROUTES
from lm_deluge.simulator.batches.jobs import parsed_object
from lm_deluge.simulator.endpoints.route import SimulatedApi, batch_routes, document_route, model_call_routes
from lm_deluge.simulator.input_tokens import count_input_tokens

__all__ = ["GEMINI", "INTERACTIONS"]

_GENERATE = find_encoder("gemini-generate")
_INTERACTIONS = find_encoder("gemini-interactions")

_MODELS = r"(?:/v1beta1|/v1beta|/v1alpha|/v1)?(?:(?:/projects/[^/]+/locations/[^/]+)?/publishers/google)?/models"
_MOST_LISTED = 50  # models in a page if the request does not set a size: https://ai.google.dev/api/models
# The context window and the longest answer in the description of a model. The simulator enforces neither; these are
# the values of Gemini 2.5: https://ai.google.dev/gemini-api/docs/models
_INPUT_LIMIT, _OUTPUT_LIMIT = 1_048_576, 65_536


def _count_tokens(routed: RoutedRequest) -> dict[str, Any]:
    # https://ai.google.dev/api/tokens: the contents alone, or a whole request.
    raw = parsed_object(routed.request.body)
    inner = raw.get("generateContentRequest") or raw.get("generate_content_request")
    body = msgspec.json.encode(inner if isinstance(inner, dict) else raw)
    tokens = count_input_tokens(_GENERATE.parse_request(body, **routed.path_params, is_streamed=False))
    return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}


def _list_models(routed: RoutedRequest) -> dict[str, Any]:
    query = routed.request.query_number
    start, size = query("pageToken", 0), query("pageSize", 0) or _MOST_LISTED
    names = model_names()
    rest = {"nextPageToken": str(start + size)} if start + size < len(names) else {}
    return {"models": [_model_row(name) for name in names[start : start + size]], **rest}


def _show_model(routed: RoutedRequest) -> dict[str, Any]:
    name = routed.path_params["id"]
    try:
        return _model_row(check_model(name))
    except NotFoundError as error:
        raise NotFoundError(f"models/{name[:100]} is not found.", status_code=404) from error


def _model_row(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "1",
        "displayName": name,
        "description": "A model of the simulator.",
        "inputTokenLimit": _INPUT_LIMIT,
        "outputTokenLimit": _OUTPUT_LIMIT,
        "supportedGenerationMethods": ["generateContent", "countTokens", "batchGenerateContent"],
    }


GEMINI = SimulatedApi(
    _GENERATE,
    (
        *model_call_routes(_GENERATE),
        document_route("POST", rf"{_MODELS}/(?P<model>[^:]+):countTokens", _GENERATE, _count_tokens),
        *batch_routes(_GENERATE, GEMINI_BATCH_ROUTES),
        document_route("GET", _MODELS, _GENERATE, _list_models),
        document_route("GET", rf"{_MODELS}/(?P<id>[^:]+)", _GENERATE, _show_model),
    ),
    paths=r"(?:/upload|/download)?/v1(?:beta1?|alpha)(?:/.*)?|.*/publishers/google(?:/.*)?|(?:/v1)?/models/[^:]+:\w+",
    marks=("x-goog-api-key", "key"),
)

INTERACTIONS = SimulatedApi(
    _INTERACTIONS, model_call_routes(_INTERACTIONS), paths=r"(?:/v1(?:beta1?|alpha)?)?/interactions(?:/.*)?"
)
