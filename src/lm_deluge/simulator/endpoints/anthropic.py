"""The routes of Anthropic's API, also on Google's Vertex AI."""

from __future__ import annotations

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.batches.anthropic import ANTHROPIC_BATCH_ROUTES
from lm_deluge.simulator.endpoints.route import SimulatedApi, batch_routes, model_call_routes

__all__ = ["ANTHROPIC"]

_MESSAGES = find_encoder("anthropic-messages")

ANTHROPIC = SimulatedApi(
    _MESSAGES,
    (*model_call_routes(_MESSAGES), *batch_routes(_MESSAGES, ANTHROPIC_BATCH_ROUTES)),
    paths=r"(?:/v1)?/messages(?:/.*)?|/v1/complete|.*/publishers/anthropic(?:/.*)?",
    marks=("anthropic-version",),
)
