"""Each fault of the status puts the described answer on the wire."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest

from lm_deluge import errors
from lm_deluge.simulator import Simulator
from lm_deluge.simulator.faults.answer import ANSWER_FAULTS
from simulator.checks import Checks, failing, healthy, refused
from simulator.raw_client import TEXT, Reply, ask

check = Checks(ANSWER_FAULTS)


@pytest.mark.parametrize("name", ANSWER_FAULTS)
async def test_the_bytes_match_the_description(name: str) -> None:
    await check.run(name)


def test_every_fault_is_checked() -> None:
    check.assert_complete()


KINDS = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.QuotaExceededError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    413: errors.RequestTooLargeError,
    429: errors.RateLimitError,
    503: errors.OverloadedError,
    529: errors.OverloadedError,
}


@check("status", *(name for name in ANSWER_FAULTS if name.startswith("status_")))
def _(reply: Reply) -> None:
    refused(reply, KINDS.get(reply.status, errors.ServerError))


WAITS = {
    "retry_after_ms": 0.05,
    "retry_after_seconds": 1.0,
    "retry_after_float": 0.25,
    "retry_after_date": 1.0,
    "retry_after_negative": None,
    "retry_after_nan": None,
    "retry_after_past": None,
    "retry_after_garbage": None,
    "retry_after_day": 86_400.0,
    "retry_after_absurd": None,
}


@pytest.mark.parametrize("name", WAITS)
async def test_the_wait_is_in_the_error(name: str) -> None:
    async with Simulator() as sim:
        error = refused(await ask(sim, name), errors.RateLimitError)
    assert error.retry_after_s == WAITS[name]


@check(*WAITS)
def _(reply: Reply) -> None:
    assert reply.status == 429
    assert "retry-after" in dict(reply.headers)
    assert parsedate_to_datetime(reply.header("date"))


@check("quota")
def _(reply: Reply) -> None:
    refused(reply, errors.QuotaExceededError)


@check("context_length")
def _(reply: Reply) -> None:
    refused(reply, errors.ContextLengthError)


@check("content_filter_first")
def _(reply: Reply) -> None:
    refused(reply, errors.ContentFilterError)


@check("x_should_retry_false")
def _(reply: Reply) -> None:
    assert refused(reply, errors.OverloadedError).should_retry is False


@check("x_should_retry_true")
def _(reply: Reply) -> None:
    assert refused(reply, errors.BadRequestError).should_retry is True


@check("error_html")
def _(reply: Reply) -> None:
    assert refused(reply, errors.ServerError).message == "an HTML page: 502 Bad Gateway"


@check("error_empty")
def _(reply: Reply) -> None:
    assert reply.body == b""
    refused(reply, errors.ServerError)


@check("error_text")
def _(reply: Reply) -> None:
    assert refused(reply, errors.ServerError).message == "upstream connect error"


@check("json_error_200")
def _(reply: Reply) -> None:
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    failing(reply, errors.RateLimitError)


@check("in_band_error_first")
def _(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.body.startswith(b'data: {"error":')
    failing(reply, errors.OverloadedError)


@check("in_band_error_mid")
def _(reply: Reply) -> None:
    assert len(reply.chunks) == 1 + 3 + 1
    error = failing(reply, errors.ServerError)
    assert TEXT.startswith(error.partial.completion)
    assert error.partial.completion


@check("extra_headers")
def _(reply: Reply) -> None:
    assert reply.header("x-ratelimit-remaining-requests") == "3"
    assert healthy(reply).completion == TEXT
