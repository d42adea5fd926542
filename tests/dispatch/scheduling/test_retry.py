"""When a failed attempt is followed by another one: a table, with time and chance as numbers."""

import math

import pytest

from lm_deluge import errors as e
from lm_deluge.dispatch.scheduling.retry import GiveUp, RetryPolicy, Switch, Wait, decide_next, decide_retry

DEFAULTS = {"attempt": 1, "time_left_s": math.inf, "chance": 0.5}


def ask(error: e.DelugeError, max_attempts: int = 5, **changes: float) -> Wait | GiveUp:
    return decide_retry(error, RetryPolicy(max_attempts, 120.0), **{**DEFAULTS, **changes})


RETRYABLE = [
    e.RateLimitError("x", status_code=429),
    e.OverloadedError("x", status_code=529),
    e.ServerError("x", status_code=500),
    e.ServerError("x", status_code=408),
    e.ConnectError("x"),
    e.TimeoutError("x"),
    e.StreamInterruptedError("x"),
    e.TruncatedError("x"),
    e.ContentTypeError("x"),
]
FINAL = [
    e.ConfigurationError("x"),
    e.BadRequestError("x", status_code=400),
    e.AuthenticationError("x", status_code=401),
    e.PermissionDeniedError("x", status_code=403),
    e.QuotaExceededError("x", status_code=429),
    e.NotFoundError("x", status_code=404),
    e.RequestTooLargeError("x", status_code=413),
    e.ServerError("x", status_code=501),
    e.ServerError("x", status_code=505),
    e.CertificateError("x"),
    e.RedirectRefusedError("x"),
    e.ProtocolError("x"),
    e.ResponseLimitError("x"),
]


@pytest.mark.parametrize("error", RETRYABLE, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again(error: e.DelugeError) -> None:
    assert isinstance(ask(error), Wait)


@pytest.mark.parametrize("error", FINAL, ids=lambda error: f"{type(error).__name__}")
def test_what_will_not_pass_is_raised(error: e.DelugeError) -> None:
    assert ask(error) == GiveUp()


def test_the_budget_of_attempts_is_kept() -> None:
    assert isinstance(ask(e.ServerError("x"), attempt=4), Wait)
    assert ask(e.ServerError("x"), attempt=5) == GiveUp()
    assert ask(e.ServerError("x"), max_attempts=1) == GiveUp()


def test_an_html_page_is_worth_one_more_try() -> None:
    assert isinstance(ask(e.ContentTypeError("x"), attempt=1), Wait)
    assert ask(e.ContentTypeError("x"), attempt=2) == GiveUp()


def test_back_off_doubles_with_full_jitter_up_to_a_cap() -> None:
    assert [ask(e.ServerError("x"), attempt=n, chance=1.0) for n in (1, 2, 3)] == [Wait(0.5), Wait(1.0), Wait(2.0)]
    assert ask(e.ServerError("x"), attempt=3, chance=0.0) == Wait(0.0)
    assert ask(e.ServerError("x"), attempt=50, max_attempts=99, chance=1.0) == Wait(30.0)


def test_an_overloaded_provider_is_left_alone_for_longer() -> None:
    assert ask(e.OverloadedError("x"), chance=1.0) == Wait(2.0)


def test_the_provider_says_how_long() -> None:
    error = e.RateLimitError("x", retry_after_s=7.0)
    assert ask(error, chance=0.0) == Wait(7.0)
    assert ask(error, chance=1.0).seconds == pytest.approx(7.7)


@pytest.mark.parametrize("error", [e.RateLimitError, e.OverloadedError, e.ServerError])
@pytest.mark.parametrize("asked_s", [0.0, 0.001])
def test_a_wait_shorter_than_the_back_off_is_no_reason_to_hurry(error: type[e.APIError], asked_s: float) -> None:
    for attempt in range(1, 5):
        assert ask(error("x", retry_after_s=asked_s), attempt=attempt) == ask(error("x"), attempt=attempt)
    assert ask_switch(error("x", retry_after_s=asked_s)) == ask_switch(error("x"))


def test_a_wait_beyond_the_cap_is_not_waited() -> None:
    decision = ask(e.RateLimitError("x", retry_after_s=86_400.0))
    assert isinstance(decision, GiveUp)
    assert "86400 s" in decision.hint


def test_a_wait_that_outlasts_the_call_is_not_waited() -> None:
    decision = ask(e.RateLimitError("x", retry_after_s=5.0), time_left_s=4.0)
    assert isinstance(decision, GiveUp)
    assert "total" in decision.hint


def test_the_provider_s_own_word_is_obeyed() -> None:
    assert ask(e.RateLimitError("x", should_retry=False)) == GiveUp()
    assert isinstance(ask(e.BadRequestError("x", status_code=400, should_retry=True)), Wait)


# Another model


def ask_switch(error: e.DelugeError, **changes: float) -> object:
    return decide_next(error, RetryPolicy(5, 120.0), **{**DEFAULTS, **changes})


SWITCHES = [
    (e.RateLimitError("x", retry_after_s=86_400.0), Switch("model", 90_720.0)),
    (e.RateLimitError("x"), Switch("model", 0.25)),
    (e.OverloadedError("x"), Switch("model", 1.0)),
    (e.ServerError("x"), Switch("model", 0.25)),
    (e.ServerError("x", should_retry=False), Switch("model", 0.25)),
    (e.NotFoundError("x"), Switch("model", math.inf)),
    (e.AuthenticationError("x"), Switch("key", math.inf)),
    (e.PermissionDeniedError("x"), Switch("model", math.inf)),
    (e.QuotaExceededError("x"), Switch("model", math.inf)),
    (e.QuotaExceededError("x", retry_after_s=60.0), Switch("model", 63.0)),
    (e.MissingAPIKeyError("x"), Switch("key", math.inf)),
    (e.ConnectError("x"), Switch("provider", 0.25)),
    (e.CertificateError("x"), Switch("provider", math.inf)),
    (e.RedirectRefusedError("x"), Switch("provider", math.inf)),
    (e.TruncatedError("x"), Switch("provider", 0.25)),
    (e.ContentTypeError("x"), Switch("provider", 0.25)),
    (e.ProtocolError("x"), Switch("provider", 0.25)),
]


@pytest.mark.parametrize(("error", "expected"), SWITCHES, ids=lambda value: type(value).__name__)
def test_what_is_not_the_requests_fault_goes_elsewhere(error: e.DelugeError, expected: Switch) -> None:
    assert ask_switch(error) == expected


@pytest.mark.parametrize(
    "error",
    [e.BadRequestError("x"), e.ContextLengthError("x"), e.RequestTooLargeError("x"), e.ConfigurationError("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_is_the_requests_fault_would_fail_elsewhere_too(error: e.DelugeError) -> None:
    assert ask_switch(error) == GiveUp()


def test_a_switch_is_an_attempt_and_takes_time() -> None:
    assert ask_switch(e.ServerError("x"), attempt=5) == GiveUp()
    assert isinstance(ask_switch(e.ServerError("x"), time_left_s=0), GiveUp)


def test_the_longer_it_fails_the_longer_it_rests() -> None:
    assert ask_switch(e.ServerError("x"), attempt=3, chance=1.0) == Switch("model", 2.0)
