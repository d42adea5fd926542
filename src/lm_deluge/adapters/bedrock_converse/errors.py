"""Errors as Bedrock names them: in a header or the body of an answer, or in the type of a message of a stream.

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

__all__ = ["classify_bedrock_error", "maybe_document_error", "stream_error"]

# The status that says what is to be done: mostly the one under which the error comes, but for those who share theirs
# with another kind of failure. Names as they are in botocore's model of the service (1.44.8, 2026-11), in lower case.
_MEANINGS: dict[str, int] = {
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
    """Return the error of an HTTP answer that is not a success."""
    said = _parsed(body)
    if said is None:
        return classify_status(status, headers, body)
    # Behind the name may stand a colon and a URL, before it a namespace and a number sign.
    name = headers.get("x-amzn-errortype") or (said.type if isinstance(said.type, str) else "")
    name = name.partition(":")[0].rpartition("#")[2]
    if not name:
        return classify_status(status, headers, body)
    fields = {"error": {"code": name, "message": said.message or said.capital}}
    error = classify_status(_meaning(name) or status, headers, msgspec.json.encode(fields))
    error.status_code = status
    return error


def maybe_document_error(body: bytes) -> APIError | None:
    """Return the error that a document in place of the answer tells of, with a status that says it is one; or None."""
    said = _parsed(body)
    if said is None or not (said.error or said.type or said.message or said.capital):
        return None
    if said.type:
        error = classify_bedrock_error(500, {}, body)
        error.status_code = None
    else:
        error = in_band_error(ServerSentEvent(body))
    error.billed = "maybe"
    return error


def _parsed(body: bytes) -> _Body | None:
    try:
        return msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def stream_error(frame: ServerSentEvent) -> APIError:
    """Return the error that a message of a stream tells of: an exception by its name."""
    try:
        found = msgspec.json.decode(frame.data)["error"]
        name = found["code"]
        meaning = _meaning(name)
        message = found["message"] or found.get("originalMessage")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError, KeyError, TypeError):
        return in_band_error(frame)
    if meaning is None:
        return in_band_error(frame)
    message = message or f"the stream failed with {name}"
    error = classify_in_band({"error": {**found, "message": message}}, status=meaning)
    error.billed = "maybe"
    return error


def _meaning(name: str) -> int | None:
    name = name.lower().removesuffix("exception")
    return _MEANINGS.get(name) or _MEANINGS.get(name.removesuffix("error"))
