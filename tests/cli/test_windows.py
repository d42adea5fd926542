"""What can be checked of the code for Windows on other platforms."""

import ast
import errno
import io
import os
import sys
from pathlib import Path

import pytest

from lm_deluge.cli.batch.batch_report import _append_command
from lm_deluge.cli.chat_commands import _path
from lm_deluge.cli.environment import is_dumb_terminal, setting_command, state_folder
from lm_deluge.cli.render.terminal import write_text

SOURCE = Path(__file__).resolve().parents[2] / "src"
UNIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
UNIX_METHODS = {"add_reader", "add_signal_handler", "fork", "geteuid", "getuid", "killpg", "setsid"}


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")


def imports_of(node: ast.AST) -> set[str]:
    names = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            names |= {alias.name for alias in each.names}
        elif isinstance(each, ast.ImportFrom):
            names.add(each.module or "")
    return names


def unchecked(tree: ast.Module) -> set[str]:
    """Return the Unix modules and methods that are used in functions which do not look at the platform."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    checked = {name for node in functions if "sys.platform" in ast.unparse(node) for name in imports_of(node)}
    methods = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & UNIX_METHODS
    return (imports_of(tree) & UNIX_ONLY) - checked | (set() if "sys.platform" in ast.unparse(tree) else methods)


def test_unix_modules_and_methods_are_used_in_functions_that_check_the_platform():
    words = UNIX_ONLY | UNIX_METHODS
    texts = {path: path.read_text("utf-8") for path in sorted(SOURCE.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items() if any(word in text for word in words)}
    assert len(trees) > 10
    found = {path.relative_to(SOURCE).as_posix(): unchecked(tree) for path, tree in trees.items()}
    assert {name: uses for name, uses in found.items() if uses} == {}


def test_a_use_without_a_check_is_found():
    bare = "import termios\nloop.add_reader(0, print)\n"
    checking = "def f():\n    if sys.platform != 'win32':\n        import termios\n        loop.add_reader(0, print)\n"
    assert unchecked(ast.parse(bare)) == {"termios", "add_reader"}
    assert unchecked(ast.parse(checking)) == set()


def test_suggested_commands(windows):
    assert setting_command("OPENAI_API_KEY", "your-key") == '$env:OPENAI_API_KEY="your-key"'
    assert _append_command("C:\\a b.rest", "out.journal") == 'cmd /c copy /b "out.journal"+"C:\\a b.rest" "out.journal"'


def test_suggested_commands_elsewhere():
    assert setting_command("OPENAI_API_KEY", "your-key") == "export OPENAI_API_KEY=your-key"
    assert _append_command("a b.rest", "out.journal") == "cat 'a b.rest' >> out.journal"


def test_a_backslash_in_the_name_of_a_file_separates_folders(monkeypatch):
    monkeypatch.setattr(os, "sep", "\\")
    assert str(_path("C:\\temp\\chat.md")) == "C:\\temp\\chat.md"
    assert str(_path('"C:\\my chats\\chat.md"')) == "C:\\my chats\\chat.md"


def test_a_backslash_elsewhere_escapes_a_space():
    assert str(_path("my\\ chat.md")) == "my chat.md"


def test_the_folder_for_state(windows, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert state_folder() == tmp_path / "lm-deluge"


def test_a_terminal_without_term_is_not_dumb(windows, monkeypatch):
    monkeypatch.delenv("TERM", raising=False)
    assert not is_dumb_terminal()


class ClosedPipe(io.RawIOBase):
    """A pipe whose reader has ended, as on Windows: https://github.com/python/cpython/issues/79935."""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")


def test_a_closed_pipe_is_a_broken_pipe(windows):
    with pytest.raises(BrokenPipeError):
        write_text(io.TextIOWrapper(ClosedPipe()), "text")


def test_an_invalid_argument_elsewhere_is_no_broken_pipe():
    with pytest.raises(OSError, match="Invalid argument") as caught:
        write_text(io.TextIOWrapper(ClosedPipe()), "text")
    assert not isinstance(caught.value, BrokenPipeError)
