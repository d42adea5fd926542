"""`deluge chat`: a conversation."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click

from lm_deluge.cli.chat_commands import Next, run_chat_command
from lm_deluge.cli.chat_session import ChatSession
from lm_deluge.cli.line_editor import InterruptedLineError, LineSource, open_lines
from lm_deluge.cli.options import CommandOptions, call_options
from lm_deluge.cli.render.escape import visible
from lm_deluge.cli.render.output import choose_output
from lm_deluge.cli.render.status_line import notes_of, summary
from lm_deluge.cli.render.stream_view import watch_for_lost_reader
from lm_deluge.cli.render.terminal import is_terminal, report, report_aside, write_text
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.prompt.message import Message


@click.command()
@call_options
def chat(**options: Any) -> None:
    """Talk with a model; /help lists the commands.

    Ctrl-C stops an answer, once more at the prompt leaves; so does Ctrl-D. Where stdin is no terminal, each line of it
    is a message.
    """
    settings = CommandOptions.from_options(options)
    chat_session = ChatSession(settings)
    if chat_session.notice:
        report(chat_session.notice)
    asyncio.run(_Chat(chat_session, settings).run())


class _Chat:
    """The loop of reading, asking and showing."""

    def __init__(self, chat_session: ChatSession, settings: CommandOptions) -> None:
        self._session = chat_session
        self._settings = settings
        self._was_interrupted = False

    async def run(self) -> None:
        """Talk until the user leaves.

        Raises:
            KeyboardInterrupt: By a second Ctrl-C.
        """
        lines = open_lines()
        try:
            with watch_for_lost_reader():
                while (line := await self._read(lines)) is not None:
                    if line.strip() and not await self._take(line):
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
                report("Ctrl-C once more leaves; so does Ctrl-D.")

    async def _take(self, line: str) -> bool:
        """Do what a line says; return whether the conversation goes on."""
        self._was_interrupted = False
        try:
            following = run_chat_command(self._session, line) if _is_command(line) else Next(Message.user(line))
        except ConfigurationError as error:
            _say_error(error)
            return True
        if following.message is not None:
            await self._ask(following.message)
        return not following.is_end

    async def _ask(self, message: Message) -> None:
        output = choose_output(is_raw=self._settings.raw, shows_reasoning=self._settings.show_reasoning)
        try:
            response, is_stopped = await _stoppable(self._session.ask(message, output))
        except DelugeError as error:
            _end_line(is_begun=error.partial is not None)
            _say_error(error)
            has_piece = self._session.cut is not None and bool(self._session.cut.completion)
            report("/retry asks again" + ("; /keep goes on from this piece." if has_piece else "."))
            return
        if is_stopped:
            self._was_interrupted = True
            _end_line(is_begun=True)
            report("Stopped. What came is kept." if self._session.unanswered is None else "Stopped; /retry asks again.")
            return
        _end_line(is_begun=True)
        for note in notes_of(response):
            report(note)
        report_aside(summary(response), is_raw=self._settings.raw)
        if is_terminal(sys.stderr):
            report("")


def _is_command(line: str) -> bool:
    """Whether a line is a command: paths like /etc/hosts are none."""
    name = line.split(maxsplit=1)[0]
    return name.startswith("/") and "/" not in name[1:] and "\n" not in line.strip()


def _end_line(*, is_begun: bool) -> None:
    """In a pipe, answers are set apart: each ends with a line feed of ours."""
    if is_begun and not is_terminal(sys.stdout):
        write_text(sys.stdout, "\n")


def _say_error(error: DelugeError) -> None:
    report(f"deluge: {visible(str(error))}")


async def _stoppable(work: Coroutine[Any, Any, Any]) -> tuple[Any, bool]:
    """Run `work` until it is done or Ctrl-C stops it; return its result, and whether it was stopped.

    A second Ctrl-C in the meantime leaves the program.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    presses = 0

    def stop() -> None:
        nonlocal presses
        presses += 1
        task.cancel()

    with contextlib.suppress(NotImplementedError, RuntimeError):
        loop.add_signal_handler(signal.SIGINT, stop)
    try:
        return await task, False
    except asyncio.CancelledError:
        if not presses:
            task.cancel()
            raise
        if presses > 1:
            raise KeyboardInterrupt from None
        return None, True
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
