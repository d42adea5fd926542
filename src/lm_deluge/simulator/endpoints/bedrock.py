"""The routes of Amazon Bedrock."""

from __future__ import annotations

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.simulator.endpoints.route import SimulatedApi, model_call_routes

__all__ = ["BEDROCK"]

_CONVERSE = find_encoder("bedrock-converse")
_INVOKE = find_encoder("bedrock-invoke")

BEDROCK = SimulatedApi(
    _CONVERSE,
    (*model_call_routes(_CONVERSE), *model_call_routes(_INVOKE)),
    paths=r"/model/.*",
)
