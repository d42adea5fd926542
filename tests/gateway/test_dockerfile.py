"""The Dockerfile, as far as it can be checked without Docker: its paths, its packages, its user, and its commands."""

import ast
import json
import re
import shlex
import tomllib

import click
import pytest

from lm_deluge.cli.commands.serve import serve
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.serve import check_address
from pages import ROOT

LINES = (ROOT / "Dockerfile").read_text().splitlines()
STEPS = [tuple(line.split(maxsplit=1)) for line in LINES if line and not line.startswith("#")]


def of(name: str) -> list[str]:
    return [text for step, text in STEPS if step == name]


def test_each_line_is_an_instruction() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert {step for step, _ in STEPS} <= known
    assert len(of("CMD")) == 1


def test_what_is_copied_exists() -> None:
    stages = re.findall(r"AS (\w+)", "\n".join(of("FROM")))
    made = [text.split()[3] for text in of("RUN") if text.startswith("python -m venv")]
    for text in of("COPY"):
        options = [word for word in text.split() if word.startswith("--")]
        *sources, _ = [word for word in text.split() if not word.startswith("--")]
        if options:
            assert options == [f"--from={stages[0]}"]
            assert sources == made
        else:
            assert all((ROOT / source).exists() for source in sources)
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = ("src", "pyproject.toml", "README.md", "LICENSE")  # by the build of the package
    assert not {name for name in needed for pattern in ignored if (ROOT / name) in ROOT.glob(pattern)}


def test_the_extras_and_the_python_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = [text for text in of("RUN") if "pip install" in text]
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", install)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert "server" in extras.split(",")
    versions = re.findall(r"python:(3\.\d+)", "\n".join(of("FROM")))
    assert len(set(versions)) == 1
    assert f"Programming Language :: Python :: {versions[0]}" in project["classifiers"]


def test_an_unprivileged_user_runs_it() -> None:
    (user,) = of("USER")
    (added,) = [shlex.split(text) for text in of("RUN") if text.startswith("useradd")]
    assert user == added[-1]
    assert int(added[added.index("--uid") + 1]) > 0
    home = added[added.index("--home-dir") + 1]
    order = [step for step, _ in STEPS]
    assert order.index("USER") < order.index("CMD")
    assert of("WORKDIR")[-1] == home
    assert f"XDG_STATE_HOME={home}" in of("ENV")[0]


def test_the_command_is_one_of_ours_and_needs_a_key() -> None:
    program, name, *options = json.loads(of("CMD")[0])
    assert (program, name) == ("deluge", "serve")
    context = click.Context(serve)
    given, rest, _ = serve.make_parser(context).parse_args(options)
    assert not rest
    settings = GatewaySettings(host=given["host"])
    with pytest.raises(ConfigurationError, match="there is no key"):
        check_address(settings, has_keys=False)
    check_address(settings, has_keys=True)
    assert of("EXPOSE") == [str(settings.port)]


def test_the_check_of_its_health_is_a_program() -> None:
    kind, _, command = of("HEALTHCHECK")[0].partition(" ")
    assert kind == "CMD"
    program, flag, source = json.loads(command)
    assert (program, flag) == ("python", "-c")
    ast.parse(source)
    assert f":{GatewaySettings().port}/health/live" in source
