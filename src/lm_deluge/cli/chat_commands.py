"""What a line of a chat that begins with a slash does."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lm_deluge.cli.chat_session import ChatSession
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.status_line import totals
from lm_deluge.cli.render.terminal import report
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.message import Message

__all__ = ["COMMANDS", "Next", "run_chat_command"]


@dataclass(frozen=True)
class Next:
    """What follows a command: a message to ask, or the end."""

    message: Message | None = None
    is_end: bool = False


_NOTHING = Next()


def _set_system(chat_session: ChatSession, text: str) -> Next:
    if text:
        chat_session.system = None if text == "-" else text
    report(f"System: {visible_line(chat_session.system) if chat_session.system else 'nothing'}")
    return _NOTHING


def _set_model(chat_session: ChatSession, name: str) -> Next:
    notice = chat_session.choose_model(name) if name else None
    report(f"Model: {visible_line(chat_session.model)}")
    if notice:
        report(notice)
    return _NOTHING


def _save(chat_session: ChatSession, name: str, *, overwrite: bool = False) -> Next:
    path = _path(name)
    chat_session.save(path, overwrite=overwrite)
    report(f"Saved {len(chat_session.conversation())} messages in {visible_line(str(path))}.")
    return _NOTHING


def _path(name: str) -> Path:
    try:
        words = shlex.split(name)
    except ValueError:
        words = [name]
    if len(words) != 1:
        raise ConfigurationError("where to?", hint="Write /save FILE, with quotation marks around a name with blanks.")
    return Path(words[0])


def _save_over(chat_session: ChatSession, name: str) -> Next:
    return _save(chat_session, name, overwrite=True)


def _retry(chat_session: ChatSession, rest: str) -> Next:
    message = chat_session.take_back()
    if message is None:
        report("There is nothing to ask again.")
    return Next(message)


def _keep(chat_session: ChatSession, rest: str) -> Next:
    report("Kept." if chat_session.keep() else "There is no piece of an answer to keep.")
    return _NOTHING


def _clear(chat_session: ChatSession, rest: str) -> Next:
    chat_session.clear()
    report("Forgotten.")
    return _NOTHING


def _tell_usage(chat_session: ChatSession, rest: str) -> Next:
    usage = chat_session.usage
    report(totals(usage.input_tokens, usage.output_tokens, chat_session.cost, is_estimated=usage.estimated))
    return _NOTHING


def _help(chat_session: ChatSession, rest: str) -> Next:
    width = max(len(usage) for usage, _, _ in COMMANDS.values())
    for usage, meaning, _ in COMMANDS.values():
        report(f"  {usage:<{width}}  {meaning}")
    report('  Alt-Enter begins a new line; so does Enter between """ and """. Ctrl-C stops an answer, Ctrl-D leaves.')
    return _NOTHING


def _quit(chat_session: ChatSession, rest: str) -> Next:
    return Next(is_end=True)


COMMANDS: dict[str, tuple[str, str, Callable[[ChatSession, str], Next]]] = {
    "/system": ("/system [TEXT]", "How the model is to behave; - for nothing.", _set_system),
    "/model": ("/model [NAME]", "Ask another model.", _set_model),
    "/retry": ("/retry", "Ask the last message again.", _retry),
    "/keep": ("/keep", "Take the piece of a failed answer for the answer.", _keep),
    "/save": ("/save FILE", "Write the conversation as JSON, or as Markdown into FILE.md.", _save),
    "/save!": ("/save! FILE", "The same, over a file that is there.", _save_over),
    "/clear": ("/clear", "Begin anew.", _clear),
    "/usage": ("/usage", "Tokens and cost so far.", _tell_usage),
    "/help": ("/help", "This list.", _help),
    "/quit": ("/quit", "Leave.", _quit),
}


def run_chat_command(chat_session: ChatSession, line: str) -> Next:
    """Run the command in `line`.

    Raises:
        ConfigurationError: There is no such command, or it cannot do what is asked.
    """
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        raise ConfigurationError(f"there is no command {visible_line(name)[:40]}", hint="/help lists them.")
    return COMMANDS[name][2](chat_session, rest.strip())
