"""The settings of the page, and the commands and files of its documentation."""

import shlex
import tomllib

import pytest
from click.testing import CliRunner

from lm_deluge.cli.commands.web import web
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.configuration.settings import PageSettings, parse_settings
from pages import ROOT, blocks

PAGE = ROOT / "docs" / "serving" / "chat-page.md"


@pytest.mark.parametrize("text", [block.text for block in blocks(PAGE, "toml")])
def test_the_files_of_the_documentation_are_read(text: str) -> None:
    assert parse_settings(tomllib.loads(text), "deluge.toml").page != PageSettings()


@pytest.mark.parametrize("text", [block.text.strip() for block in blocks(PAGE, "sh")])
def test_the_commands_of_the_documentation_have_these_options(text: str) -> None:
    program, command, *options = shlex.split(text)
    assert (program, command) == ("deluge", "web")
    result = CliRunner().invoke(web, [*options, "--help"])
    assert result.exit_code == 0
    names = [option for option in options if option.startswith("--")]
    assert all(f"  {name} " in result.output for name in names)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("x", r"\[page\] is not a table"),
        ({"enable": True}, "Do you mean 'enabled'"),
        ({"enabled": "no"}, r"\[page\].*Expected `bool`"),
        ({"mcp": "npx"}, r"\[page\].*Expected `array`"),
    ],
)
def test_wrong_settings_are_named(page: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        parse_settings({"page": page}, "deluge.toml")
