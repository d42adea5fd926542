"""The routes of Google's Gemini APIs, also on Vertex AI."""

from __future__ import annotations

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.batches.gemini import GEMINI_BATCH_ROUTES
from lm_deluge.simulator.endpoints.route import SimulatedApi, batch_routes, model_call_routes

__all__ = ["GEMINI", "INTERACTIONS"]

_GENERATE = find_encoder("gemini-generate")
_INTERACTIONS = find_encoder("gemini-interactions")

GEMINI = SimulatedApi(
    _GENERATE,
    (*model_call_routes(_GENERATE), *batch_routes(_GENERATE, GEMINI_BATCH_ROUTES)),
    paths=r"(?:/upload|/download)?/v1(?:beta1?|alpha)(?:/.*)?|.*/publishers/google(?:/.*)?|(?:/v1)?/models/[^/]+:\w+",
    marks=("x-goog-api-key", "key"),
)

INTERACTIONS = SimulatedApi(
    _INTERACTIONS, model_call_routes(_INTERACTIONS), paths=r"(?:/v1(?:beta1?|alpha)?)?/interactions(?:/.*)?"
)
