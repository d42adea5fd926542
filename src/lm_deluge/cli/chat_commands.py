"""The slash commands of a chat."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lm_deluge.cli.chat_session import ChatSession
from lm_deluge.cli.render.definitions import definitions
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.status_line import totals
from lm_deluge.cli.render.terminal import report
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.message import Message

__all__ = ["COMMANDS", "NextStep", "run_chat_command"]


@dataclass(frozen=True)
class NextStep:
    """The step after a command.

    Attributes:
        message: A message to send, or None.
        is_end: Whether the chat ends.
    """

    message: Message | None = None
    is_end: bool = False


_NEXT_LINE = NextStep()


def _set_system(chat_session: ChatSession, text: str) -> NextStep:
    if text:
        chat_session.system = None if text == "-" else text
    report(f"System: {visible_line(chat_session.system) if chat_session.system else 'none'}")
    return _NEXT_LINE


def _set_model(chat_session: ChatSession, name: str) -> NextStep:
    notice = chat_session.choose_model(name) if name else None
    report(f"Model: {visible_line(chat_session.model)}")
    if notice:
        report(notice)
    return _NEXT_LINE


def _save(chat_session: ChatSession, name: str, *, overwrite: bool = False) -> NextStep:
    path = _path(name)
    chat_session.save(path, overwrite=overwrite)
    report(f"Saved {len(chat_session.conversation())} messages in {visible_line(str(path))}.")
    return _NEXT_LINE


def _path(name: str) -> Path:
    lexer = shlex.shlex(name, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    lexer.escape = lexer.escape.replace(os.sep, "")  # on Windows the backslash separates folders
    try:
        words = list(lexer)
    except ValueError:  # a quotation mark without a second one
        words = [name]
    if len(words) != 1:
        raise ConfigurationError("/save needs one file name", hint="Put a name with spaces into quotation marks.")
    return Path(words[0])


def _save_over(chat_session: ChatSession, name: str) -> NextStep:
    return _save(chat_session, name, overwrite=True)


def _retry(chat_session: ChatSession, rest: str) -> NextStep:
    message = chat_session.take_back()
    if message is None:
        report("There is no message to send again.")
    return NextStep(message)


def _keep(chat_session: ChatSession, rest: str) -> NextStep:
    report("Kept." if chat_session.keep() else "There is no partial answer to keep.")
    return _NEXT_LINE


def _clear(chat_session: ChatSession, rest: str) -> NextStep:
    chat_session.clear()
    report("Cleared.")
    return _NEXT_LINE


def _show_usage(chat_session: ChatSession, rest: str) -> NextStep:
    usage = chat_session.usage
    report(totals(usage.input_tokens, usage.output_tokens, chat_session.cost, is_estimated=usage.estimated))
    return _NEXT_LINE


def _help(chat_session: ChatSession, rest: str) -> NextStep:
    rows = [(usage, meaning) for usage, meaning, _ in COMMANDS.values()]
    report(definitions(rows, sys.stderr, indent="  ").rstrip("\n"))
    report('  Alt-Enter starts a new line; so does Enter between """ and """.')
    report("  Ctrl-C stops an answer, Ctrl-D ends the chat.")
    return _NEXT_LINE


def _quit(chat_session: ChatSession, rest: str) -> NextStep:
    return NextStep(is_end=True)


COMMANDS: dict[str, tuple[str, str, Callable[[ChatSession, str], NextStep]]] = {
    "/system": ("/system [TEXT]", "Set the system message; - removes it.", _set_system),
    "/model": ("/model [NAME]", "Use another model.", _set_model),
    "/retry": ("/retry", "Send the last message again.", _retry),
    "/keep": ("/keep", "Keep the partial answer of a failed call.", _keep),
    "/save": ("/save FILE", "Write the conversation as JSON, or as Markdown into FILE.md.", _save),
    "/save!": ("/save! FILE", "The same, but overwrite an existing file.", _save_over),
    "/clear": ("/clear", "Remove all messages.", _clear),
    "/usage": ("/usage", "Tokens and cost so far.", _show_usage),
    "/help": ("/help", "Show this list.", _help),
    "/quit": ("/quit", "End the chat.", _quit),
}


def run_chat_command(chat_session: ChatSession, line: str) -> NextStep:
    """Run the command in `line`.

    Raises:
        ConfigurationError: There is no such command, or the command failed.
    """
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        raise ConfigurationError(f"there is no command {visible_line(name)[:40]}", hint="/help lists them.")
    return COMMANDS[name][2](chat_session, rest.strip())
