"""The input of a chat: a line editor on a terminal, else the lines of stdin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lm_deluge.cli.environment import is_dumb_terminal, state_folder
from lm_deluge.cli.render.terminal import is_terminal

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

__all__ = ["InterruptedLineError", "LineSource", "open_lines"]

QUOTES = '"""'
_PROMPT = "> "
_READ_SIZE = 2**16  # the capacity of a pipe on Linux (pipe(7)): one read takes all that is there


class InterruptedLineError(Exception):
    """Ctrl-C at the prompt.

    Attributes:
        had_text: Whether it discarded text that was typed.
    """

    def __init__(self, *, had_text: bool) -> None:
        super().__init__("interrupted")
        self.had_text = had_text


class LineSource(Protocol):
    """Yields the messages of the user."""

    async def next_message(self) -> str | None:
        """Return the next message, or None at the end of the input.

        Raises:
            InterruptedLineError: The user pressed Ctrl-C.
        """


def open_lines() -> LineSource:
    """Return a line editor if stdin and stdout are a terminal, else a reader of plain lines."""
    is_interactive = is_terminal(sys.stdin) and is_terminal(sys.stdout) and not is_dumb_terminal()
    return _Editor() if is_interactive else _PlainLines()


class _PlainLines:
    """Reads stdin: each line is a message, and so are all lines between two lines of three quotation marks."""

    def __init__(self) -> None:
        self._buffered = bytearray()

    async def next_message(self) -> str | None:
        line = await self._next_line()
        if line is None or not line.lstrip().startswith(QUOTES):
            return line
        lines = [line.lstrip()[len(QUOTES) :]]
        while not lines[-1].rstrip().endswith(QUOTES):
            following = await self._next_line()
            if following is None:
                break
            lines.append(following)
        lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
        return "\n".join(lines).strip("\n")

    async def _next_line(self) -> str | None:
        """Read one line in a daemon thread, because a blocked read must not keep the process alive."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        def deliver(line: str) -> None:
            if not future.done():
                future.set_result(line)

        def read() -> None:
            line = self._read_line().decode("utf-8", "replace")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, line)

        if is_terminal(sys.stdin):
            sys.stderr.write(_PROMPT)
            sys.stderr.flush()
        threading.Thread(target=read, daemon=True, name="stdin").start()
        line = await future
        return line.rstrip("\r\n") if line else None

    def _read_line(self) -> bytes:
        """Return the next line with its line feed, or the rest of stdin, which is empty at its end.

        It reads from the file below the buffer of `sys.stdin`. A thread that is blocked in the buffer holds its lock,
        and the interpreter aborts if it cannot take that lock when it exits.
        """
        buffer = sys.stdin.buffer
        source = getattr(buffer, "raw", buffer)  # on a Windows console it converts the text to UTF-8
        while b"\n" not in self._buffered:
            data = source.read(_READ_SIZE)
            if not data:
                break
            self._buffered += data
        end = self._buffered.find(b"\n") + 1 or len(self._buffered)
        line = bytes(self._buffered[:end])
        del self._buffered[:end]
        return line


class _Editor:
    """Reads messages with a line editor that has a history."""

    def __init__(self) -> None:
        self._session: PromptSession[str] = _build_session()

    async def next_message(self) -> str | None:
        try:
            text = await self._session.prompt_async(_PROMPT, prompt_continuation="  ")
        except EOFError:
            return None
        except KeyboardInterrupt:
            raise InterruptedLineError(had_text=bool(self._session.default_buffer.text)) from None
        stripped = text.strip()
        is_quoted = stripped.startswith(QUOTES) and stripped.endswith(QUOTES) and len(stripped) >= 2 * len(QUOTES)
        return stripped[len(QUOTES) : -len(QUOTES)].strip("\n") if is_quoted else text


def _build_session() -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter")
    def _enter(event: Any) -> None:
        text = event.current_buffer.text
        if text.lstrip().startswith(QUOTES) and not _is_closed(text):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _alt_enter(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    path = _history_file()
    history = InMemoryHistory() if path is None else FileHistory(str(path))
    return PromptSession(history=history, key_bindings=bindings, multiline=True, enable_open_in_editor=False)


def _is_closed(text: str) -> bool:
    stripped = text.strip()
    return len(stripped) >= 2 * len(QUOTES) and stripped.endswith(QUOTES)


def _history_file() -> Path | None:
    """Return the file of earlier messages, readable by its owner only; None if it cannot be created."""
    path = state_folder() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except OSError:
        return None
    return path
