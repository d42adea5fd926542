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
    model_call_route,
)
from lm_deluge.simulator.input_tokens import count_input_tokens

__all__ = ["OPENAI", "model_row"]

_CHAT = find_encoder("openai-chat")
_RESPONSES = find_encoder("openai-responses")

# The paths in the base URLs of hosts that are compatible with OpenAI, so that the SDK of such a host needs only another
# origin. A list instead of any path: a client that doubles the version (`/v1/v1/...`) gets a 404, as from the host.
_HOST_PATHS = (
    "/openai/v1",  # Groq, Azure, Bedrock
    "/openai",  # Azure's dated versions
    "/v1/openai",  # DeepInfra
    "/v1beta/openai",  # Gemini
    "/api/v1",  # OpenRouter, Arcee
    "/api/v2/cortex/v1",  # Snowflake
    "/api/paas/v4",  # Z.ai
    "/inference",  # GitHub
    "/inference/v1",  # Fireworks
    "/compatible-mode/v1",  # Alibaba
    "/serving-endpoints",  # Databricks
    "/ai-gateway/mlflow/v1",  # Databricks, its gateway
    "/serverless/v1",  # Friendli
    "/client/v4/accounts/[^/]+/ai/v1",  # Cloudflare
)
_ROOT = f"(?:{'|'.join(_HOST_PATHS)}|/v1)?"  # clients configure base URLs with and without the version
# The id of a model. A path that ends with a method of Google, such as `:embedContent`, is Google's.
_ID = r"(?P<id>(?!.*:[a-z]+[A-Z]\w*$).+)"


def model_row(name: str) -> dict[str, Any]:
    """Return the description of a model in OpenAI's format."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "lm-deluge"}


def _list_models(routed: RoutedRequest) -> dict[str, Any]:
    return {"object": "list", "data": [model_row(name) for name in model_names()]}


def _show_model(routed: RoutedRequest) -> dict[str, Any]:
    return model_row(check_model(routed.path_params["id"]))


def _count_tokens(routed: RoutedRequest) -> dict[str, Any]:
    tokens = count_input_tokens(_RESPONSES.parse_request(routed.request.body))
    return {"object": "response.input_tokens", "input_tokens": tokens}


OPENAI = SimulatedApi(
    _CHAT,
    (
        model_call_route(_CHAT, rf"{_ROOT}/chat/completions"),
        model_call_route(_CHAT, r"/openai/deployments/(?P<model>[^/]+)/chat/completions"),  # Azure's dated versions
        model_call_route(_CHAT, r"/v1/chat"),  # Writer
        document_route("POST", rf"{_ROOT}/responses/input_tokens", _RESPONSES, _count_tokens),
        model_call_route(_RESPONSES, rf"{_ROOT}/responses"),
        SimulatedRoute("GET", re.compile(rf"{_ROOT}/responses/(?P<id>[^/]+)"), _RESPONSES, Answers.resume),
        SimulatedRoute("POST", re.compile(rf"{_ROOT}/responses/(?P<id>[^/]+)/cancel"), _RESPONSES, Answers.cancel),
        *batch_routes(_CHAT, OPENAI_BATCH_ROUTES),
        document_route("GET", rf"{_ROOT}/models", _CHAT, _list_models),
        document_route("GET", rf"{_ROOT}/models/{_ID}", _CHAT, _show_model),
    ),
    paths=rf"(?:{'|'.join(_HOST_PATHS)})(?:/.*)?",
)
