"""The routes of Ollama's own API."""

from __future__ import annotations

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.endpoints.route import SimulatedApi, model_call_routes

__all__ = ["OLLAMA"]

_CHAT = find_encoder("ollama-chat")

OLLAMA = SimulatedApi(_CHAT, model_call_routes(_CHAT), paths=r"/api(?:/.*)?")
