"""An encoded error is decoded as the same error."""

from __future__ import annotations

import json

import pytest

from lm_deluge import errors
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.encoders.openai_chat.response import encode_error, encode_stream_error
from lm_deluge.testing import decode_body

STATUS = {
    errors.BadRequestError: 400,
    errors.ContextLengthError: 400,
    errors.ContentFilterError: 400,
    errors.AuthenticationError: 401,
    errors.PermissionDeniedError: 403,
    errors.QuotaExceededError: 429,
    errors.NotFoundError: 404,
    errors.RequestTooLargeError: 413,
    errors.RateLimitError: 429,
    errors.OverloadedError: 503,
    errors.ServerError: 500,
}


@pytest.mark.parametrize("kind", STATUS, ids=lambda kind: kind.__name__)
def test_the_class_survives(kind: type[errors.APIError]) -> None:
    body = encode_error(kind("it did not work"))
    read = OpenAIChat().classify_error(STATUS[kind], {}, body)
    assert (type(read), read.message) == (kind, "it did not work")


def test_the_type_and_code_of_the_error_win() -> None:
    body = encode_error(errors.ServerError("no", type="engine", code="E1"))
    assert json.loads(body) == {"error": {"message": "no", "type": "engine", "param": None, "code": "E1"}}


def test_a_class_of_the_users_is_written_as_its_nearest() -> None:
    class Busy(errors.RateLimitError):
        """An error class that is not in the table of the encoder."""

    assert json.loads(encode_error(Busy("wait")))["error"]["code"] == "rate_limit_exceeded"


def test_a_stream_fails_in_band() -> None:
    frame = encode_stream_error(errors.RateLimitError("wait"))
    with pytest.raises(errors.RateLimitError, match="wait"):
        decode_body("openai-chat", frame)
