"""`deluge chat`: a conversation on a terminal, or line by line from stdin."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from lm_deluge.cli.chat_commands import NextStep, run_chat_command
from lm_deluge.cli.chat_session import ChatSession
from lm_deluge.cli.interrupts import handle_signals
from lm_deluge.cli.line_editor import InterruptedLineError, LineSource, open_lines
from lm_deluge.cli.options import CommandOptions, call_options
from lm_deluge.cli.render.escape import visible, visible_line
from lm_deluge.cli.render.output import choose_output
from lm_deluge.cli.render.status_line import notes_of, summary
from lm_deluge.cli.render.stream_view import watch_for_closed_stdout
from lm_deluge.cli.render.terminal import is_terminal, report, report_aside, write_text
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.prompt.message import Message


@click.command()
@call_options
@click.option("--resume", "resumed", metavar="FILE", help="Continue a conversation that /save has written as JSON.")
def chat(resumed: str | None, **options: Any) -> None:
    """Chat with a model; /help lists the commands.

    Ctrl-C stops an answer; a second Ctrl-C at the prompt ends the chat, and so does Ctrl-D. If stdin is not a
    terminal, each line of it is a message.
    """
    settings = CommandOptions.from_options(options)
    chat_session = ChatSession(settings) if resumed is None else ChatSession.resume(settings, Path(resumed))
    if chat_session.notice:
        report(chat_session.notice)
    if resumed is not None:
        count = len(chat_session.conversation())
        report(f"Resumed {count} messages of {visible_line(resumed)} with {visible_line(chat_session.model)}.")
    asyncio.run(_Chat(chat_session, settings).run())


class _Chat:
    """Reads messages, sends them and shows the answers."""

    def __init__(self, chat_session: ChatSession, settings: CommandOptions) -> None:
        self._session = chat_session
        self._settings = settings
        self._was_interrupted = False

    async def run(self) -> None:
        """Run until the user ends the chat.

        Raises:
            KeyboardInterrupt: The user pressed Ctrl-C twice.
        """
        lines = open_lines()
        try:
            with watch_for_closed_stdout():
                while (line := await self._read(lines)) is not None:
                    if line.strip() and not await self._run_line(line):
                        break
        finally:
            await self._session.client.close()

    async def _read(self, lines: LineSource) -> str | None:
        while True:
            try:
                return await lines.next_message()
            except InterruptedLineError as error:
                if self._was_interrupted and not error.had_text:
                    raise KeyboardInterrupt from None
                self._was_interrupted = True
                report("Press Ctrl-C again to end the chat, or Ctrl-D.")

    async def _run_line(self, line: str) -> bool:
        """Run a command or send a message; return whether the chat continues."""
        self._was_interrupted = False
        try:
            step = run_chat_command(self._session, line) if _is_command(line) else NextStep(Message.user(line))
        except ConfigurationError as error:
            _print_error(error)
            return True
        if step.message is not None:
            await self._ask(step.message)
        return not step.is_end

    async def _ask(self, message: Message) -> None:
        output = choose_output(is_raw=self._settings.raw, shows_reasoning=self._settings.show_reasoning)
        try:
            response, is_stopped = await _stoppable(self._session.ask(message, output))
        except DelugeError as error:
            _end_line(has_text=error.partial is not None)
            _print_error(error)
            has_text = self._session.partial is not None and bool(self._session.partial.completion)
            report("/retry sends the message again" + ("; /keep keeps this partial answer." if has_text else "."))
            return
        if is_stopped:
            self._was_interrupted = True
            _end_line(has_text=True)
            is_kept = self._session.unanswered is None
            report("Stopped. The partial answer is kept." if is_kept else "Stopped. /retry sends the message again.")
            return
        _end_line(has_text=True)
        for note in notes_of(response):
            report(note)
        report_aside(summary(response), is_raw=self._settings.raw)
        if is_terminal(sys.stderr):
            report("")


def _is_command(line: str) -> bool:
    """Whether a line is a command. A path like /etc/hosts is not."""
    name = line.split(maxsplit=1)[0]
    return name.startswith("/") and "/" not in name[1:] and "\n" not in line.strip()


def _end_line(*, has_text: bool) -> None:
    """Write a line feed after an answer if stdout is not a terminal, to separate it from the next answer."""
    if has_text and not is_terminal(sys.stdout):
        write_text(sys.stdout, "\n")


def _print_error(error: DelugeError) -> None:
    report(f"deluge: {visible(str(error))}")


async def _stoppable(work: Coroutine[Any, Any, Any]) -> tuple[Any, bool]:
    """Run `work` until it ends or Ctrl-C stops it; return its result, and whether it was stopped.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed a second time before `work` had ended.
    """
    task = asyncio.ensure_future(work)
    count = 0

    def stop(number: int) -> None:
        nonlocal count
        count += 1
        task.cancel()

    with handle_signals([signal.SIGINT], stop):
        try:
            return await task, False
        except asyncio.CancelledError:
            if not count:
                task.cancel()
                raise
            if count > 1:
                raise KeyboardInterrupt from None
            return None, True
