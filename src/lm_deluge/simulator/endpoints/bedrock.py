"""The routes of Amazon Bedrock."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import BadRequestError
from lm_deluge.simulator.answers import RoutedRequest
from lm_deluge.simulator.batches.jobs import parsed_object
from lm_deluge.simulator.endpoints.route import SimulatedApi, document_route, model_call_routes
from lm_deluge.simulator.input_tokens import count_input_tokens

__all__ = ["BEDROCK"]

_CONVERSE = find_encoder("bedrock-converse")
_INVOKE = find_encoder("bedrock-invoke")


def _count_tokens(routed: RoutedRequest) -> dict[str, Any]:
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html
    model = routed.path_params["model"]
    match parsed_object(routed.request.body).get("input"):
        case {"converse": dict(body)}:
            parsed = _CONVERSE.parse_request(msgspec.json.encode(body), model=model)
        case {"invokeModel": {"body": str(text)}}:
            parsed = _INVOKE.parse_request(_decoded(text), model=model)
        case _:
            raise _bad_request("The value at input must have the member converse or invokeModel.")
    return {"inputTokens": count_input_tokens(parsed)}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_request("The value at input.invokeModel.body is not base64 text.") from error


def _bad_request(message: str) -> BadRequestError:
    return BadRequestError(message, status_code=400, type="ValidationException")


BEDROCK = SimulatedApi(
    _CONVERSE,
    (
        *model_call_routes(_CONVERSE),
        *model_call_routes(_INVOKE),
        document_route("POST", "/model/(?P<model>[^/]+)/count-tokens", _CONVERSE, _count_tokens),
    ),
    paths=r"/model/.*",
)
