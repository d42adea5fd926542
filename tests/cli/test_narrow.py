"""Commands on a terminal of 40 columns, and commands without arguments."""

from __future__ import annotations

import pytest

from cli.driver import run, terminal
from lm_deluge.simulator import FAULTS


def screen(*arguments: str, home, columns: int, code: int = 0) -> list[str]:
    with terminal(*arguments, home=home, columns=columns, rows=100) as tty:
        assert tty.end() == code
        return [line.rstrip() for line in tty.screen.text.splitlines()]


@pytest.mark.parametrize("columns", [40, 51])
@pytest.mark.parametrize("arguments", [["--help"], ["stream", "--help"], ["keys", "create", "--help"]], ids=" ".join)
def test_help_fits_a_narrow_terminal(arguments, columns, home):
    wide = screen(*arguments, home=home, columns=100)
    narrow = screen(*arguments, home=home, columns=columns)
    assert [line for line in narrow if len(line) >= columns and " " in line.strip()] == []  # no word is broken
    assert "".join("".join(narrow).split()) == "".join("".join(wide).split())


def test_the_faults_are_wrapped_in_their_column(home):
    lines = screen("simulate", "--list-faults", home=home, columns=60)
    column = lines[0].index("every multi-byte")
    assert all(line[:column].isspace() or line.split()[0] in FAULTS for line in lines if line)
    assert max(map(len, lines)) < 60


def test_the_faults_have_rows_of_their_own_on_a_very_narrow_terminal(home):
    lines = screen("simulate", "--list-faults", home=home, columns=40)
    assert lines[:3] == ["split_utf8", "    every multi-byte character arrives", "    in pieces"]


def test_the_help_of_a_chat_is_wrapped_in_its_column(home):
    with terminal("chat", "-m", "simulator", home=home, columns=40) as tty:
        tty.expect(">$")
        tty.send("/help\r")
        text = tty.expect(r"Ctrl-D ends[^>]*>$")
        tty.send("\x04")
        assert tty.end() == 0
    assert "  /retry" in text
    assert "\n    Send the last message again." in text or "\n                  message again." in text
    assert max(len(line.rstrip()) for line in text.splitlines()) < 40


@pytest.mark.parametrize("arguments", [[], ["keys"]], ids=str)
def test_without_a_command_there_is_the_help(arguments, home):
    wrong = run(*arguments, home=home)
    assert wrong.returncode == 2
    assert wrong.stdout == b""
    assert wrong.stderr == run(*arguments, "--help", home=home).stdout


def test_empty_lists_are_explained_on_stderr(home):
    keys, spend = run("keys", "list", home=home), run("spend", home=home)
    since = run("spend", "--since", "2026-11-01", home=home)
    assert (keys.stdout, keys.stderr) == (b"", b"There is no key yet; deluge keys create makes one.\n")
    assert (spend.stdout, spend.stderr) == (b"", b"No call was made yet.\n")
    assert (since.stdout, since.stderr) == (b"", b"No call was made since 2026-11-01.\n")
    assert run("keys", "list", "--json", home=home).stdout == b""
