"""`-o NAME VALUE`."""

import pytest
from click.testing import CliRunner

from cli.driver import run
from lm_deluge.cli.main import cli
from lm_deluge.cli.sampling_options import parse_parameters
from lm_deluge.config import SamplingParams
from lm_deluge.errors import ConfigurationError

VALUES = {
    "temperature": ("0.5", 0.5),
    "top_p": ("1", 1.0),
    "max_new_tokens": ("7", 7),
    "stop": ("END", ("END",)),
    "seed": ("-3", -3),
    "presence_penalty": ("0.1", 0.1),
    "frequency_penalty": ("-2", -2.0),
    "reasoning_effort": ("none", "none"),
    "json_mode": ("true", True),
    "logprobs": ("1", True),
    "top_logprobs": ("3", 3),
    "tool_choice": ("none", "none"),
    "parallel_tool_calls": ("false", False),
    "service_tier": ("flex", "flex"),
    "verbosity": ("low", "low"),
}


@pytest.mark.parametrize("name", SamplingParams.__struct_fields__)
def test_every_parameter_is_converted_to_its_type(name):
    text, value = VALUES[name]
    parsed = parse_parameters([(name.replace("_", "-"), text)])
    assert parsed == {name: value}
    assert type(parsed[name]) is type(value)
    assert getattr(SamplingParams(**parsed), name) == value


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("max_tokens", "7")], "Did you mean max_new_tokens"),
        ([("nonsense", "7")], "nonsense"),
        ([("temperature", "warm")], "not a number"),
        ([("seed", "1.5")], "not an integer"),
        ([("json_mode", "perhaps")], "not true or false"),
        ([("verbosity", "loud")], "low, medium, high"),
        ([("seed", "1"), ("seed", "2")], "twice"),
    ],
)
def test_a_wrong_parameter_is_named(pairs, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_parameters(pairs)


def test_several_stops():
    assert parse_parameters([("stop", "a"), ("stop", "b")]) == {"stop": ("a", "b")}


def test_they_reach_the_provider(serve, home):
    simulator = serve("yes")
    env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": simulator.base_url}
    options = ["-m", "gpt-4o", "-s", "Be brief", "-o", "top_p", "0.5", "-o", "stop", "END", "-o", "max_new_tokens", "9"]
    done = run("stream", "hi", *options, home=home, **env)
    assert done.returncode == 0, done.stderr
    body = simulator.requests[0].json
    assert body["messages"][0] == {"role": "system", "content": "Be brief"}
    assert (body["top_p"], body["stop"], body["max_completion_tokens"]) == (0.5, ["END"], 9)


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "temperature", "0.5", "--temperature", "0.5"],
        ["-o", "temperature", "9"],
        ["-o", "json_mode", "true", "--json-mode"],
        ["-o", "top_k", "9"],
    ],
)
def test_wrong_use_sends_nothing(options):
    done = CliRunner().invoke(cli, ["stream", "-m", "simulator", "hi", *options])
    assert done.exit_code != 0
    assert done.stdout == ""
