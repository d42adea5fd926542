"""Convert Bedrock's errors, named in a header or the body of a response, or in the type of a stream's message.

https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lm_deluge.adapters.body_decoder import in_band_error
from lm_deluge.adapters.errors import classify_in_band, classify_status
from lm_deluge.errors import APIError
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, decode_json

__all__ = ["classify_bedrock_error", "maybe_document_error", "stream_error"]

# Error name -> the HTTP status that selects our exception class. Mostly the real status; it differs where Bedrock uses
# one status for several kinds of failure. Names from botocore's model of the service (1.44.8, 2026-11), in lower case.
_STATUS_BY_NAME: dict[str, int] = {
    "accessdenied": 403,
    "conflict": 400,
    "expiredtoken": 401,
    "incompletesignature": 401,
    "internalfailure": 500,
    "internalserver": 500,
    "invalidclienttokenid": 401,
    "invalidsignature": 401,
    "missingauthenticationtoken": 401,
    "modelerror": 500,
    "modelnotready": 503,
    "modelstreamerror": 500,
    "modeltimeout": 408,
    "notauthorized": 403,
    "optinrequired": 403,
    "requestexpired": 401,
    "resourcenotfound": 404,
    "servicequotaexceeded": 402,
    "serviceunavailable": 503,
    "throttling": 429,
    "toomanyrequests": 429,
    "unrecognizedclient": 401,
    "validation": 400,
}


class _Body(msgspec.Struct):
    error: Any = None
    message: Any = None
    capital: Any = msgspec.field(default=None, name="Message")
    type: Any = msgspec.field(default=None, name="__type")


def classify_bedrock_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """Return the exception for an HTTP error response."""
    parsed = _parsed(body)
    if parsed is None:
        return classify_status(status, headers, body)
    # Formats: "Name", "Name:http://...", "namespace#Name".
    name = headers.get("x-amzn-errortype") or (parsed.type if isinstance(parsed.type, str) else "")
    name = name.partition(":")[0].rpartition("#")[2]
    if not name:
        return classify_status(status, headers, body)
    fields = {"error": {"code": name, "message": parsed.message or parsed.capital}}
    error = classify_status(_status_of(name) or status, headers, msgspec.json.encode(fields))
    error.status_code = status
    return error


def maybe_document_error(body: bytes) -> APIError | None:
    """Return the exception for an error document sent with a success status, or None if `body` is not an error."""
    parsed = _parsed(body)
    if parsed is None or not (parsed.error or parsed.type or parsed.message or parsed.capital):
        return None
    if parsed.type:
        error = classify_bedrock_error(500, {}, body)
        error.status_code = None
    else:
        error = in_band_error(ServerSentEvent(body))
    error.billed = "maybe"
    return error


def _parsed(body: bytes) -> _Body | None:
    try:
        return msgspec.convert(decode_json(body), _Body)
    except (NotJSONError, msgspec.ValidationError, RecursionError):
        return None


def stream_error(frame: ServerSentEvent) -> APIError:
    """Return the exception for an exception message in a stream."""
    try:
        found = decode_json(frame.data)["error"]
        name = found["code"]
        status = _status_of(name)
        message = found["message"] or found.get("originalMessage")
    except (NotJSONError, AttributeError, KeyError, TypeError):
        return in_band_error(frame)
    if status is None:
        return in_band_error(frame)
    message = message or f"the stream failed with {name}"
    error = classify_in_band({"error": {**found, "message": message}}, status=status)
    error.billed = "maybe"
    return error


def _status_of(name: str) -> int | None:
    name = name.lower().removesuffix("exception")
    return _STATUS_BY_NAME.get(name) or _STATUS_BY_NAME.get(name.removesuffix("error"))
