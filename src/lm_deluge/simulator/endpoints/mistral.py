"""The routes of Mistral's API. Its paths are OpenAI's, so the simulator puts `/mistral` in front of them."""

from __future__ import annotations

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.endpoints.route import SimulatedApi, model_call_routes

__all__ = ["MISTRAL"]

_CHAT = find_encoder("mistral-chat")

MISTRAL = SimulatedApi(_CHAT, model_call_routes(_CHAT), paths=r"/mistral(?:/.*)?")
