"""`deluge chat`, by pipe and on a terminal."""

import json
import signal
import stat
import subprocess

import pytest

from cli.driver import COMMAND, PATIENCE_S, clean_environment, run, terminal, wait_until
from lm_deluge.simulator import Fault, Pace

SLOW = Pace(tokens_per_second=25)


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": simulator.base_url}


def talk(simulator, home, *lines: str, **more):
    stdin = "".join(f"{line}\n" for line in lines).encode()
    return run("chat", home=home, stdin=stdin, **reach(simulator), **more)


def said(simulator, number: int = -1) -> list[tuple[str, str]]:
    messages = simulator.requests[number].json["messages"]
    return [(message["role"], message["content"]) for message in messages]


def test_the_conversation_is_kept(serve, home):
    simulator = serve(["one", "two"])
    done = talk(simulator, home, "first", "second")
    assert done.returncode == 0
    assert done.stdout == b"one\ntwo\n"
    assert said(simulator) == [("user", "first"), ("assistant", "one"), ("user", "second")]


def test_several_lines_between_quotation_marks_are_one_message(serve, home):
    simulator = serve("yes")
    talk(simulator, home, '"""', "line 1", "", "line 2", '"""', "/etc/hosts is a path")
    assert said(simulator, 0) == [("user", "line 1\n\nline 2")]
    assert said(simulator)[-1] == ("user", "/etc/hosts is a path")


def test_system_and_model(serve, home):
    simulator = serve("yes")
    done = talk(simulator, home, "/system Be brief", "/model gpt-4.1", "hi", "/system -", "/model gpt-9", "hi")
    assert said(simulator, 0)[0] == ("system", "Be brief")
    assert said(simulator)[0] == ("user", "hi")
    assert [request.json["model"] for request in simulator.requests] == ["gpt-4.1", "gpt-4.1"]
    assert b"there is no model 'gpt-9'" in done.stderr
    assert done.returncode == 0


def test_save(serve, home):
    (home / "theirs.md").write_text("mine")
    lines = ["/system Be brief", "hi", "/save a.json", "/save a.json", "/save 'b c.md'", "/save theirs.md", "/save"]
    done = talk(serve("**yes**"), home, *lines)
    data = json.loads((home / "a.json").read_text())
    assert data["model"] == "gpt-4o"
    assert [message["role"] for message in data["messages"]] == ["system", "user", "assistant"]
    assert data["messages"][2]["parts"][0]["text"] == "**yes**"
    assert (home / "b c.md").read_text().endswith("**Assistant:**\n\n**yes**\n")
    assert (home / "theirs.md").read_text() == "mine"
    assert b"there is a file theirs.md already" in done.stderr
    talk(serve("yes"), home, "hi", "/save! theirs.md")
    assert "yes" in (home / "theirs.md").read_text()


def test_retry_forgets_the_last_answer(serve, home):
    simulator = serve(["one", "two", "three"])
    done = talk(simulator, home, "/retry", "first", "/retry", "next")
    assert done.stdout == b"one\ntwo\nthree\n"
    assert b"nothing to ask again" in done.stderr
    assert said(simulator, 1) == [("user", "first")]
    assert said(simulator) == [("user", "first"), ("assistant", "two"), ("user", "next")]


def test_an_error_leaves_the_conversation_as_it_was(serve, home):
    faults = [None, Fault("reset", after=2), None, None]
    simulator = serve(["one two three"], faults=faults)
    done = talk(simulator, home, "first", "second", "/retry", "third")
    assert done.returncode == 0
    assert done.stdout == b"one two three\none two\none two three\none two three\n"
    assert b"/retry asks again" in done.stderr
    assert said(simulator, 2) == [("user", "first"), ("assistant", "one two three"), ("user", "second")]
    assert len(said(simulator, 3)) == 5


def test_a_failed_message_is_not_in_the_conversation_unless_it_is_kept(serve, home):
    simulator = serve("one two three", faults=[Fault("reset", after=2), None])
    talk(simulator, home, "first", "second")
    assert said(simulator) == [("user", "second")]
    simulator = serve("one two three", faults=[Fault("reset", after=2), None])
    talk(simulator, home, "first", "/keep", "second")
    assert said(simulator) == [("user", "first"), ("assistant", "one two"), ("user", "second")]


def test_clear_usage_help_and_unknown_commands(serve, home):
    simulator = serve("yes")
    done = talk(simulator, home, "hi", "/usage", "/help", "/nonsense", "/clear", "again", "/quit", "never")
    assert b"tokens in, 1 out" in done.stderr
    assert b"/save FILE" in done.stderr
    assert b"there is no command /nonsense" in done.stderr
    assert said(simulator) == [("user", "again")]


def test_without_a_key_the_simulator_says_so(home):
    done = run("chat", home=home, stdin=b"")
    assert done.returncode == 0
    assert done.stderr.startswith(b"Simulator: no OPENAI_API_KEY is set")


@pytest.mark.parametrize("when", ["answering", "waiting"])
def test_ctrl_c_on_a_pipe_stops_the_answer_or_leaves(serve, home, when):
    simulator = serve("word " * 500, pace=SLOW)
    process = subprocess.Popen(  # noqa: S603
        [*COMMAND, "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=clean_environment(home, **reach(simulator)),
    )
    process.stdin.write(b"hi\n")
    process.stdin.flush()
    assert process.stdout.read(4) == b"word"
    process.send_signal(signal.SIGINT)
    if when == "answering":
        out, err = process.communicate(b"/usage\n", timeout=PATIENCE_S)
        assert process.returncode == 0
        assert b"Stopped. What came is kept." in err
        assert b"tokens in, ~" in err
    else:
        wait_until(lambda: simulator.stats.aborted == 1, "the end of the answer")
        while b"Stopped" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
    assert out.endswith(b"\n")
    assert b"Traceback" not in err


def test_a_conversation_on_a_terminal(serve, home):
    simulator = serve(["**one**", "two"])
    with terminal("chat", home=home, **reach(simulator)) as tty:
        tty.expect(">$")
        tty.send("first\r")
        tty.expect(r"one\ngpt-4o[^>]*\n\n>$")
        tty.send("\x1b[A")  # the history
        tty.expect(r"gpt-4o[\s\S]*> first")
        tty.send(" again\x1b\rand more\r")
        tty.expect(r"two\ngpt-4o[^>]*\n\n>$")
        assert said(simulator)[-1] == ("user", "first again\nand more")
        tty.send("\x04")
        assert tty.end() == 0
    history = home / "state" / "lm-deluge" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+first" in history.read_text()


def test_ctrl_c_on_a_terminal_stops_the_answer_and_then_leaves(serve, home):
    simulator = serve("word " * 500, pace=SLOW)
    with terminal("chat", home=home, **reach(simulator)) as tty:
        tty.expect(">$")
        tty.send("hi\r")
        tty.expect("word word")
        tty.interrupt()
        tty.expect(r"Stopped\. What came is kept\.\n>$")
        tty.send("/usage\r")
        tty.expect(r"tokens in, ~\d+ out.*\n>$")
        tty.interrupt()
        tty.expect(r"once more leaves.*\n>$")
        tty.interrupt()
        assert tty.end() == 130
    assert simulator.stats.aborted == 1
