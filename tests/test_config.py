"""Options: each value is checked when the options are created."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from lm_deluge.config import ClientOptions, SamplingParams, Secret, Timeouts
from lm_deluge.errors import ConfigurationError

WRONG_SAMPLING: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 2.1}, "temperature=2.1 is not a number between 0 and 2."),
    ({"temperature": True}, "temperature=True is not a number between 0 and 2."),
    ({"temperature": "hot"}, "temperature='hot' is not a number between 0 and 2."),
    ({"temperature": float("nan")}, "temperature=nan is not a number between 0 and 2."),
    ({"top_p": -0.1}, "top_p=-0.1 is not a number between 0 and 1."),
    ({"max_new_tokens": 0}, "max_new_tokens=0 is not a number 1 or more."),
    ({"max_new_tokens": 1.5}, "max_new_tokens=1.5 is not an integer."),
    ({"presence_penalty": 3}, "presence_penalty=3 is not a number between -2 and 2."),
    ({"frequency_penalty": -3}, "frequency_penalty=-3 is not a number between -2 and 2."),
    ({"top_logprobs": 21}, "top_logprobs=21 is not a number between 0 and 20."),
    ({"top_logprobs": 2.5}, "top_logprobs=2.5 is not an integer."),
    ({"seed": 1.0}, "seed=1.0 is not an integer."),
    ({"seed": True}, "seed=True is not an integer."),
    ({"stop": ""}, "stop must be one or more texts that are not empty."),
    ({"stop": []}, "stop must be one or more texts that are not empty."),
    ({"stop": ["a", 5]}, "stop must be one or more texts that are not empty."),
    ({"stop": 5}, "stop must be one or more texts that are not empty."),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_SAMPLING, ids=str)
def test_sampling_parameters_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SamplingParams(**fields)
    assert str(caught.value) == message


def test_bounds_are_inclusive() -> None:
    for temperature in (0, 2, 0.0, 2.0):
        assert SamplingParams(temperature=temperature).temperature == temperature
    assert SamplingParams(top_logprobs=0, max_new_tokens=1, seed=-5).seed == -5


@pytest.mark.parametrize("stop", ["a", ("a",), ["a"]])
def test_stop_becomes_a_tuple(stop: Any) -> None:
    assert SamplingParams(stop=stop).stop == ("a",)
    assert SamplingParams(stop=stop) == SamplingParams(stop="a")


@pytest.mark.parametrize("value", [0, -1, True, "10", float("nan"), "auto"])
@pytest.mark.parametrize("name", ["connect", "first_token", "idle", "progress", "total"])
def test_clocks_are_seconds_above_zero(name: str, value: Any) -> None:
    if (name, value) == ("first_token", "auto"):
        assert Timeouts(first_token="auto").first_token == "auto"
        return
    with pytest.raises(ConfigurationError) as caught:
        Timeouts(**{name: value})
    assert str(caught.value) == f"Timeouts.{name}={value!r} is not a number of seconds above 0, nor None."


def test_the_first_token_clock_depends_on_the_model_unless_set() -> None:
    assert Timeouts().for_model(is_reasoning=False).first_token == 120
    assert Timeouts().for_model(is_reasoning=True).first_token == 600
    for value in (7.0, None):
        clocks = Timeouts(first_token=value)
        assert clocks.for_model(is_reasoning=True) is clocks


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"max_attempts": 0}, "max_attempts=0 is not a number between 1 and 1000."),
    ({"max_attempts": 1.5}, "max_attempts=1.5 is not an integer."),
    ({"max_retry_after_s": -1}, "max_retry_after_s=-1 is not a number 0 or more."),
    ({"max_event_bytes": 1}, "max_event_bytes=1 is not a number between 1024 and 2.14748e+09."),
    ({"sampling_params": {}}, "sampling_params is not a SamplingParams."),
    ({"timeouts": 30}, "timeouts is not a Timeouts; write timeouts=Timeouts(idle=30), for example."),
    ({"base_url": "a.test"}, "base_url must begin with http:// or https://."),
    ({"temprature": 1}, "there is no option 'temprature'. Did you mean temperature?"),
]


@pytest.mark.parametrize(("keywords", "message"), WRONG_OPTIONS, ids=str)
def test_wrong_options(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ClientOptions.from_keywords(keywords)
    assert str(caught.value) == message


def test_an_option_like_no_other_lists_them_all() -> None:
    with pytest.raises(
        ConfigurationError, match=r"there is no option 'zzzzz'\. Known options: api_key, background, base_url, .*"
    ):
        ClientOptions.from_keywords({"zzzzz": 1})


def test_options_and_sampling_shortcuts_together() -> None:
    given = SamplingParams(temperature=1, seed=3)
    options = ClientOptions.from_keywords({"max_attempts": 2, "temperature": 0, "sampling_params": given})
    assert options == ClientOptions(max_attempts=2, sampling_params=SamplingParams(temperature=0, seed=3))
    assert ClientOptions.from_keywords({}) == ClientOptions()
    assert ClientOptions.from_keywords({"seed": 1}).sampling_params == SamplingParams(seed=1)


def test_a_key_never_prints() -> None:
    options = ClientOptions(
        api_key="sk-1234567890", extra_headers={"x": "sk-1"}, proxy="http://u:sk-1@p", extra_body={"k": "sk-1"}
    )
    assert "sk-1" not in repr(options)
    secret = Secret("sk-1234567890")
    assert (secret.reveal(), str(secret), repr(secret), f"{secret}") == ("sk-1234567890", *["Secret('...')"] * 3)
    for travel in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="a Secret cannot be pickled"):
            travel(secret)
