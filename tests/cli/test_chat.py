"""`deluge chat` on pipes and on a terminal."""

import json
import signal
import stat
import subprocess

import pytest

from cli.driver import PATIENCE_S, run, start, terminal, wait_until
from lm_deluge.cli.chat_session import ChatSession
from lm_deluge.cli.options import CommandOptions
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from lm_deluge.simulator import Fault, Pace

SLOW = Pace(tokens_per_second=25)


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": simulator.base_url}


def chat(simulator, home, *lines: str, arguments=(), **more):
    stdin = "".join(f"{line}\n" for line in lines).encode()
    return run("chat", *arguments, home=home, stdin=stdin, **reach(simulator), **more)


def messages_of(simulator, number: int = -1) -> list[tuple[str, str]]:
    messages = simulator.requests[number].json["messages"]
    return [(message["role"], message["content"]) for message in messages]


def test_the_conversation_is_kept(serve, home):
    simulator = serve(["one", "two"])
    done = chat(simulator, home, "first", "second")
    assert done.returncode == 0
    assert done.stdout == b"one\ntwo\n"
    assert messages_of(simulator) == [("user", "first"), ("assistant", "one"), ("user", "second")]


def test_several_lines_between_quotation_marks_are_one_message(serve, home):
    simulator = serve("yes")
    chat(simulator, home, '"""', "line 1", "", "line 2", '"""', "/etc/hosts is a path")
    assert messages_of(simulator, 0) == [("user", "line 1\n\nline 2")]
    assert messages_of(simulator)[-1] == ("user", "/etc/hosts is a path")


def test_system_and_model(serve, home):
    simulator = serve("yes")
    done = chat(simulator, home, "/system Be brief", "/model gpt-4.1", "hi", "/system -", "/model gpt-9", "hi")
    assert messages_of(simulator, 0)[0] == ("system", "Be brief")
    assert messages_of(simulator)[0] == ("user", "hi")
    assert [request.json["model"] for request in simulator.requests] == ["gpt-4.1", "gpt-4.1"]
    assert b"there is no model 'gpt-9'" in done.stderr
    assert done.returncode == 0


def test_save(serve, home):
    (home / "theirs.md").write_text("mine")
    lines = ["/system Be brief", "hi", "/save a.json", "/save a.json", "/save 'b c.md'", "/save theirs.md", "/save"]
    done = chat(serve("**yes**"), home, *lines)
    data = json.loads((home / "a.json").read_text())
    assert data["model"] == "gpt-5.4"
    assert [message["role"] for message in data["messages"]] == ["system", "user", "assistant"]
    assert data["messages"][2]["parts"][0]["text"] == "**yes**"
    assert (home / "b c.md").read_text().endswith("**Assistant:**\n\n**yes**\n")
    assert (home / "theirs.md").read_text() == "mine"
    assert b"the file theirs.md exists already" in done.stderr
    chat(serve("yes"), home, "hi", "/save! theirs.md")
    assert "yes" in (home / "theirs.md").read_text()


def test_saved_chats_are_private(serve, home):
    (home / "old.json").write_text("x" * 10_000)
    (home / "old.json").chmod(0o644)
    chat(serve("yes"), home, "hi", "/save a.json", "/save a.md", "/save! old.json")
    for name in ("a.json", "a.md", "old.json"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
    assert json.loads((home / "old.json").read_text()) == json.loads((home / "a.json").read_text())


def test_a_saved_chat_is_resumed(serve, home):
    chat(serve("one"), home, "/system Be brief", "first", "/save a.json")
    simulator = serve("two")
    done = chat(simulator, home, "second", "/usage", "/save a.json", arguments=["--resume", "a.json"])
    assert done.stdout == b"two\n", done.stderr
    assert done.stderr.startswith(b"Resumed 3 messages of a.json with gpt-5.4.\n")
    assert messages_of(simulator) == [
        ("system", "Be brief"),
        ("user", "first"),
        ("assistant", "one"),
        ("user", "second"),
    ]
    saved = json.loads((home / "a.json").read_text())
    assert len(saved["messages"]) == 5
    assert f"{saved['usage']['input_tokens']} tokens in".encode() in done.stderr


def test_options_override_what_was_saved(serve, home):
    chat(serve("one"), home, "/model gpt-4.1", "/system Be brief", "first", "/save a.json")
    simulator = serve("two")
    chat(simulator, home, "second", arguments=["--resume", "a.json"])
    assert simulator.requests[0].json["model"] == "gpt-4.1"
    chat(simulator, home, "second", arguments=["--resume", "a.json", "-m", "gpt-5.4", "-s", "Be long"])
    assert simulator.requests[1].json["model"] == "gpt-5.4"
    assert messages_of(simulator)[0] == ("system", "Be long")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("nowhere.json", None, b"cannot read nowhere.json"),
        ("a.md", "**User:**\n\nhi\n", b"JSON files can"),
        ("a.json", '{"messages": [{"role": "judge"}]}', b"is not a chat that /save has written"),
        ("a.json", "[]", b"is not a chat that /save has written"),
    ],
)
def test_a_file_that_cannot_be_resumed(serve, home, name, text, words):
    if text is not None:
        (home / name).write_text(text)
    done = chat(serve("yes"), home, "hi", arguments=["--resume", name])
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr


def test_every_kind_of_part_survives_a_saved_chat(tmp_path):
    image = Media(media_type="image/png", data=b"\x89PNG\xff")
    call = ToolCallPart("c1", "f", '{"a": 1}', {"a": 1})
    messages = [
        Message("user", (TextPart("hi"), ImagePart(image), FilePart(image), AudioPart(image))),
        Message("assistant", (ReasoningPart("hm"), call, ProviderDataPart("openai", "x", {"y": [1]}))),
        Message.tool_result("c1", "done"),
        Message("assistant", (RefusalPart("no"),)),
    ]
    settings = CommandOptions(None, None, "k", None, None, None, {}, model="gpt-5.4")
    saved = ChatSession(settings)
    saved.messages = messages
    saved.save(tmp_path / "a.json", overwrite=False)
    assert ChatSession.resume(settings, tmp_path / "a.json").messages == messages


def test_retry_forgets_the_last_answer(serve, home):
    simulator = serve(["one", "two", "three"])
    done = chat(simulator, home, "/retry", "first", "/retry", "next")
    assert done.stdout == b"one\ntwo\nthree\n"
    assert b"no message to send again" in done.stderr
    assert messages_of(simulator, 1) == [("user", "first")]
    assert messages_of(simulator) == [("user", "first"), ("assistant", "two"), ("user", "next")]


def test_an_error_leaves_the_conversation_as_it_was(serve, home):
    faults = [None, Fault("reset", after=2), None, None]
    simulator = serve(["one two three"], faults=faults)
    done = chat(simulator, home, "first", "second", "/retry", "third")
    assert done.returncode == 0
    assert done.stdout == b"one two three\none two\none two three\none two three\n"
    assert b"/retry sends the message again" in done.stderr
    assert messages_of(simulator, 2) == [("user", "first"), ("assistant", "one two three"), ("user", "second")]
    assert len(messages_of(simulator, 3)) == 5


def test_a_failed_message_is_not_in_the_conversation_unless_it_is_kept(serve, home):
    simulator = serve("one two three", faults=[Fault("reset", after=2), None])
    chat(simulator, home, "first", "second")
    assert messages_of(simulator) == [("user", "second")]
    simulator = serve("one two three", faults=[Fault("reset", after=2), None])
    chat(simulator, home, "first", "/keep", "second")
    assert messages_of(simulator) == [("user", "first"), ("assistant", "one two"), ("user", "second")]


def test_clear_usage_help_and_unknown_commands(serve, home):
    simulator = serve("yes")
    done = chat(simulator, home, "hi", "/usage", "/help", "/nonsense", "/clear", "again", "/quit", "never")
    assert b"tokens in, 1 out" in done.stderr
    assert b"/save FILE" in done.stderr
    assert b"there is no command /nonsense" in done.stderr
    assert messages_of(simulator) == [("user", "again")]


def test_without_a_key_a_chat_in_a_pipe_is_refused(home):
    done = run("chat", home=home, stdin=b"hi\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"OPENAI_API_KEY is not set" in done.stderr


def test_without_a_key_the_simulator_answers_on_a_terminal_with_a_notice(home):
    with terminal("chat", home=home) as tty:
        assert tty.expect(">$").startswith("Simulator: no OPENAI_API_KEY is set")
        tty.send("\x04")
        assert tty.end() == 0


@pytest.mark.parametrize("when", ["answering", "waiting"])
def test_ctrl_c_on_a_pipe_stops_the_answer_or_leaves(serve, home, when):
    simulator = serve("word " * 500, pace=SLOW)
    process = start("chat", home=home, stdin=subprocess.PIPE, **reach(simulator))
    process.stdin.write(b"hi\n")
    process.stdin.flush()
    assert process.stdout.read(4) == b"word"
    process.send_signal(signal.SIGINT)
    if when == "answering":
        out, err = process.communicate(b"/usage\n", timeout=PATIENCE_S)
        assert process.returncode == 0
        assert b"Stopped. The partial answer is kept." in err
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
        tty.expect(r"one\ngpt-5.4[^>]*\n\n>$")
        tty.send("\x1b[A")  # the history
        tty.expect(r"gpt-5.4[\s\S]*> first")
        tty.send(" again\x1b\rand more\r")
        tty.expect(r"two\ngpt-5.4[^>]*\n\n>$")
        assert messages_of(simulator)[-1] == ("user", "first again\nand more")
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
        tty.expect(r"Stopped\. The partial answer is kept\.\n>$")
        tty.send("/usage\r")
        tty.expect(r"tokens in, ~\d+ out.*\n>$")
        tty.interrupt()
        tty.expect(r"again to end the chat.*\n>$")
        tty.interrupt()
        assert tty.end() == 130
    assert simulator.stats.aborted == 1
