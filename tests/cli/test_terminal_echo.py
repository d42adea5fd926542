"""What is typed while an answer streams is not shown, and the echo of the terminal comes back at any end."""

import io
import os
import pty
import signal
import sys
import termios
from pathlib import Path

import pytest

from cli.driver import terminal, wait_until
from lm_deluge.cli.terminal_echo import hide_typing
from lm_deluge.simulator import Pace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no echo to turn off")
SLOW = Pace(tokens_per_second=25)


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": simulator.base_url}


def has_echo(descriptor: int) -> bool:
    return bool(termios.tcgetattr(descriptor)[3] & termios.ECHO)


def test_what_is_typed_is_not_in_the_answer(serve, home):
    simulator = serve("word " * 30, pace=SLOW)
    with terminal("stream", "hi", home=home, **reach(simulator)) as tty:
        tty.expect("word")
        assert not has_echo(tty.descriptor)
        tty.send("XYZ\n")
        assert tty.end() == 0
        assert "X" not in tty.screen.text
        assert has_echo(tty.descriptor)


def test_what_is_typed_while_a_chat_answers_is_the_next_message(serve, home):
    simulator = serve(["word " * 20, "two"], pace=SLOW)
    with terminal("chat", home=home, **reach(simulator)) as tty:
        tty.expect(">$")
        tty.send("hi\r")
        tty.expect("word")
        tty.send("XYZ")
        assert "X" not in tty.expect(r"first token[\s\S]*> ?XYZ$").partition("first token")[0]
        tty.send("\r")
        tty.expect("two")
    assert simulator.requests[-1].json["messages"][-1]["content"] == "XYZ"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_restores_the_echo(serve, home, number):
    with terminal("stream", "hi", home=home, **reach(serve("word " * 500, pace=SLOW))) as tty:
        tty.expect("word")
        assert not has_echo(tty.descriptor)
        tty.process.send_signal(number)
        tty.end()
        assert has_echo(tty.descriptor)


def test_a_failed_answer_restores_the_echo(serve, home):
    simulator = serve("word " * 500, pace=SLOW)
    with terminal("stream", "hi", "--timeout-total", "0.5", home=home, **reach(simulator)) as tty:
        assert tty.end() == 1
        assert has_echo(tty.descriptor)


def state_of(process_id: int) -> str:
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_echo_is_on_while_the_command_is_suspended(serve, home):
    with terminal(
        "-c", SUSPENDED, home=home, program=[sys.executable], **reach(serve("word " * 500, pace=SLOW))
    ) as tty:
        tty.expect("word")
        child = int(tty.expect(r"child=(\d+)").partition("child=")[2].split()[0])
        tty.send("\x1a")
        wait_until(lambda: state_of(child) == "T", "the stop")
        assert has_echo(tty.descriptor)
        os.kill(child, signal.SIGCONT)
        wait_until(lambda: tty.read(0.01) and not has_echo(tty.descriptor), "the answer to go on")
        os.kill(child, signal.SIGTERM)
        tty.end()
        assert has_echo(tty.descriptor)


# A process group that is not orphaned can be stopped: the child of this program is in a group of its own.
SUSPENDED = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-m", "lm_deluge", "stream", "hi"], process_group=0)
os.tcsetpgrp(0, child.pid)
print(f"child={child.pid}", flush=True)
child.wait()
"""


def test_a_file_is_no_terminal(tmp_path):
    before = signal.getsignal(signal.SIGTSTP)
    with (tmp_path / "out").open("w") as file, hide_typing(file):
        assert signal.getsignal(signal.SIGTSTP) == before
    with hide_typing(io.StringIO()):
        pass


def test_a_terminal_of_another_session_is_left_alone():
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as file, hide_typing(file):
        assert has_echo(master)
    os.close(master)
    assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
