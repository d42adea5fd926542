"""Encode errors in Bedrock's format.

https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

import msgspec

from lm_deluge import errors
from lm_deluge.errors import APIError
from lm_deluge.wire.eventstream import encode_event_message

__all__ = ["encode_error", "encode_event", "encode_stream_error"]

# Bedrock's exception for each class. The most derived class in this table applies.
_NAMES: dict[type[APIError], str] = {
    errors.APIError: "InternalServerException",
    errors.BadRequestError: "ValidationException",
    errors.AuthenticationError: "UnrecognizedClientException",
    errors.PermissionDeniedError: "AccessDeniedException",
    errors.QuotaExceededError: "ServiceQuotaExceededException",
    errors.NotFoundError: "ResourceNotFoundException",
    errors.RequestTooLargeError: "ValidationException",
    errors.RateLimitError: "ThrottlingException",
    errors.OverloadedError: "ServiceUnavailableException",
    errors.ServerError: "InternalServerException",
}

# The exceptions that a started stream can end with; Bedrock reports other errors before the stream starts.
_IN_STREAM = {"InternalServerException", "ServiceUnavailableException", "ThrottlingException", "ValidationException"}


def _name(error: APIError) -> str:
    if error.code and error.code.endswith("Exception"):
        return error.code[:1].upper() + error.code[1:]
    return next(_NAMES[each] for each in type(error).__mro__ if each in _NAMES)


def encode_error(error: APIError) -> bytes:
    """Return the JSON body of an error response. `__type` names the exception for clients that ignore the headers."""
    return msgspec.json.encode({"__type": _name(error), "message": error.message})


def encode_stream_error(error: APIError) -> bytes:
    """Return the message that reports an error in a started stream. No message follows it."""
    name = _name(error)
    if name not in _IN_STREAM and not name.startswith("Model"):
        name = "ModelStreamErrorException"
    headers = {
        ":exception-type": name[:1].lower() + name[1:],
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode_event_message(msgspec.json.encode({"message": error.message}), headers)


def encode_event(kind: str, payload: bytes) -> bytes:
    """Return the event-stream message of one event."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode_event_message(payload, headers)
