"""Runs `deluge` in a process of its own, on pipes or on a terminal."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from cli.render.emulator import Emulator

PATIENCE_S = 30.0  # long enough for a busy machine, short enough to find a hang
COMMAND = [sys.executable, "-m", "lm_deluge"]
SOURCE = Path(__file__).resolve().parents[2] / "src"


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without keys, proxies and settings of the user who runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCE),
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "PYTHONWARNINGS": "error",
        **more,
    }


def run(*arguments: str, home: Path, stdin: bytes | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: S603
        [*COMMAND, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        cwd=home,
        env=clean_environment(home, **env),
        timeout=PATIENCE_S,
        check=False,
    )


def _do_nothing(number, frame) -> None: ...


@contextlib.contextmanager
def only_ignoring(numbers: Collection[int]) -> Iterator[None]:
    """Let child processes that are started in the block ignore exactly these signals out of SIGINT, SIGTERM and SIGHUP.

    Children inherit ignored signals. A script that runs `make test &`, or `nohup`, starts the tests with some of them
    ignored, and then no child would react to them. A handler is not inherited: the child gets the default action.
    """
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        is_ignored = signal.getsignal(number) == signal.SIG_IGN
        if is_ignored != (number in numbers):
            previous[number] = signal.signal(number, _do_nothing if is_ignored else signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def start(
    *arguments: str, home: Path, stdin: int = subprocess.DEVNULL, ignored: Collection[int] = (), **env: str
) -> subprocess.Popen[bytes]:
    with only_ignoring(ignored):
        return subprocess.Popen(  # noqa: S603
            [*COMMAND, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env=clean_environment(home, **env),
        )


def wait_until(condition, event: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {event}"
        time.sleep(0.01)


class Terminal:
    """A process on a pseudo-terminal, and its screen."""

    def __init__(
        self,
        *arguments: str,
        home: Path,
        columns: int = 80,
        rows: int = 24,
        stdout: Path | None = None,
        program: list[str] = COMMAND,
        **env: str,
    ) -> None:
        self.descriptor, slave = pty.openpty()
        self._slave = slave
        self.screen = Emulator(columns, rows)
        self.raw = b""
        self.resize(columns, rows)
        out = os.open(stdout, os.O_WRONLY | os.O_CREAT) if stdout else slave
        with only_ignoring(()):
            self.process = subprocess.Popen(  # noqa: S603
                [*program, *arguments],
                stdin=slave,
                stdout=out,
                stderr=slave,
                cwd=home,
                env=clean_environment(home, **env),
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            )
        os.close(slave)
        if stdout:
            os.close(out)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds: float) -> bool:
        """Read the available output; return whether the terminal is still open."""
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:
            return False
        self.raw += data
        self.screen.feed(data)
        for position in self.screen.questions:
            self.send(position)
        self.screen.questions.clear()
        return bool(data)

    def expect(self, pattern: str) -> str:
        """Wait until the text of the screen, scrollback included, matches; return the text."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.screen.text):
            assert time.monotonic() < deadline, f"no {pattern!r} in\n{self.screen.text}"
            if not self.read(0.1):
                assert re.search(pattern, self.screen.text), f"ended without {pattern!r}:\n{self.screen.text}"
        return self.screen.text

    def send(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def interrupt(self) -> None:
        self.send("\x03")

    def end(self) -> int:
        """Wait for the end of the process; return its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.read(0.1):
            assert time.monotonic() < deadline, f"no end of\n{self.screen.text}"
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.descriptor)


@contextlib.contextmanager
def terminal(*arguments: str, **options) -> Iterator[Terminal]:
    tty = Terminal(*arguments, **options)
    try:
        yield tty
    finally:
        tty.close()
