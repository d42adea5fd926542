"""The model of a command that names none, and names in the form of other tools."""

import pytest

from cli.driver import run, start
from lm_deluge.cli.default_model import _MODELS, find_default_model
from lm_deluge.models.registry import find_model, find_provider


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("DELUGE_MODEL", raising=False)
    for provider in _MODELS:
        row = find_provider(provider)
        for name in (*row.key_env, *row.base_url_env):
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("provider", _MODELS)
def test_the_default_models_are_known_and_served_by_their_provider(provider):
    row = find_model(_MODELS[provider])
    assert (row.provider, row.status) == (provider, None)


@pytest.mark.parametrize("provider", _MODELS)
def test_the_provider_whose_key_is_set(monkeypatch, provider):
    for name in find_provider(provider).key_env:
        with monkeypatch.context() as patch:
            patch.setenv(name, "k")
            assert find_default_model() == _MODELS[provider]


def test_the_variable_has_precedence_over_keys(monkeypatch):
    assert find_default_model() == "gpt-5.4"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("DELUGE_MODEL", " mistral-large-latest ")
    assert find_default_model() == find_default_model(is_openai=True) == "mistral-large-latest"
    monkeypatch.setenv("DELUGE_MODEL", "")
    assert find_default_model() == "claude-sonnet-5-5"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert find_default_model() == "gpt-5.4"


def test_an_empty_key_is_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert find_default_model() == "claude-sonnet-5-5"
    assert find_default_model(is_openai=True) == "gpt-5.4"


@pytest.mark.parametrize("command", ["stream", "chat", "batch"])
def test_the_commands_use_it(serve, home, command):
    simulator = serve("yes")
    url = simulator.base_url.removesuffix("/v1")
    (home / "in.jsonl").write_text('"hi"\n')
    arguments = {"stream": ["hi"], "chat": [], "batch": ["in.jsonl", "out.jsonl", "--progress", "none"]}[command]
    done = run(command, *arguments, home=home, stdin=b"hi\n", ANTHROPIC_API_KEY="k", ANTHROPIC_BASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert simulator.requests[0].json["model"] == "claude-sonnet-5-5"


def test_the_variable_may_stand_in_dotenv(serve, home):
    simulator = serve("yes")
    (home / ".env").write_text("DELUGE_MODEL=gpt-4.1\n")
    run("stream", "hi", home=home, OPENAI_API_KEY="k", OPENAI_BASE_URL=simulator.base_url)
    assert simulator.requests[0].json["model"] == "gpt-4.1"


def test_the_simulator_may_be_the_variable(home):
    process = start("stream", "hi", home=home, DELUGE_MODEL="simulator")
    assert process.stdout.read(2) == b"##"
    process.kill()
    assert process.communicate()[1].startswith(b"Simulator: ")
