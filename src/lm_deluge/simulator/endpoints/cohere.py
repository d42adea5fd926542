"""The routes of Cohere's API."""

from __future__ import annotations

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.endpoints.route import SimulatedApi, model_call_routes

__all__ = ["COHERE"]

_CHAT = find_encoder("cohere-v2")

COHERE = SimulatedApi(_CHAT, model_call_routes(_CHAT), paths=r"/v2(?:/.*)?")
