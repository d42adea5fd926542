"""`deluge stream` on pipes."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.driver import COMMAND, PATIENCE_S, clean_environment, run, start, terminal, wait_until
from lm_deluge.cli.main import cli
from lm_deluge.simulator import Fault, Pace, Script

ODD = "# Title\n\n**bold** \x1b[31mred\x1b[0m \x07 \u202e \U0001f30a \u6f22\u5b57\r\n\ttab, no newline at the end"
SLOW = Pace(tokens_per_second=20)
KEY = "sk-test-0123456789abcdef"


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}


def test_a_pipe_gets_the_answer_byte_for_byte(serve, home):
    done = run("stream", "hi", home=home, **reach(serve(Script(text=ODD))))
    assert done.returncode == 0
    assert done.stdout == ODD.encode()
    assert b"gpt-5.4" in done.stderr
    assert b"tokens in" in done.stderr
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_the_answer_is_utf_8_in_any_locale(serve, home, locale):
    done = run("stream", "hi", home=home, **reach(serve(ODD)), **locale)
    assert done.stdout == ODD.encode()


def test_text_is_flushed_as_it_arrives(serve, home):
    process = start("stream", "hi", home=home, **reach(serve("one two three " * 400, pace=SLOW)))
    assert process.stdout.read(1) == b"o"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("arguments", [("stream",), ("stream", "-")])
def test_the_prompt_is_read_from_stdin(serve, home, arguments):
    simulator = serve("yes")
    done = run(*arguments, home=home, stdin="Gr\u00fc\u00dfe\n".encode(), **reach(simulator))
    assert done.stdout == b"yes"
    assert simulator.requests[0].json["messages"][-1]["content"] == "Gr\u00fc\u00dfe\n"


def test_options_reach_the_provider(serve, home):
    simulator = serve('{"a": 1}')
    schema = home / "schema.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}}')
    image = home / "dot.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    options = ["--system", "Be brief", "--temperature", "0.5", "--max-tokens", "7"]
    media = ["--schema", str(schema), "--image", str(image), "--image", "https://example.com/x.png"]
    done = run("stream", "hi", *options, *media, home=home, **reach(simulator))
    assert done.returncode == 0, done.stderr
    body = simulator.requests[0].json
    assert body["messages"][0] == {"role": "system", "content": "Be brief"}
    assert [part["type"] for part in body["messages"][1]["content"]].count("image_url") == 2
    assert body["temperature"] == 0.5
    assert body["max_completion_tokens"] == 7
    assert body["response_format"]["type"] == "json_schema"


def test_json_is_one_line_with_everything(serve, home):
    done = run("stream", "hi", "--json", home=home, **reach(serve(ODD)))
    assert done.stdout.count(b"\n") == 1
    data = json.loads(done.stdout)
    assert data["content"]["parts"][0]["text"] == ODD
    assert data["usage"]["output_tokens"] > 0
    assert data["error"] is None


def test_json_of_a_failure_has_the_error_and_the_partial_answer(serve, home):
    done = run("stream", "hi", "--json", home=home, **reach(serve("one two three", faults=Fault("reset", after=2))))
    data = json.loads(done.stdout)
    assert done.returncode == 1
    assert data["error"]["type"] == "StreamInterruptedError"
    assert data["content"]["parts"][0]["text"]


def test_reasoning_goes_to_stderr_and_only_when_asked_for(serve, home):
    simulator = serve(Script(text="Yes.", reasoning="Let me think."))
    silent = run("stream", "hi", home=home, **reach(simulator))
    shown = run("stream", "hi", "--show-reasoning", home=home, **reach(simulator))
    assert silent.stdout == shown.stdout == b"Yes."
    assert b"Let me think." not in silent.stderr
    assert shown.stderr.startswith(b"Let me think.\n")


def test_quiet_prints_nothing(serve, home):
    assert run("stream", "hi", "-q", home=home, **reach(serve("yes"))).stderr == b""


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ({"text": "one", "finish_reason": "length"}, b"cut off"),
        ({"text": "one", "finish_reason": "content_filter"}, b"content filter"),
        ({"refusal": "No."}, b"refused"),
    ],
)
def test_quiet_reports_that_an_answer_is_not_complete(serve, home, answer, word):
    simulator = serve(Script(**answer))
    done = run("stream", "hi", "-q", home=home, **reach(simulator))
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


CODE = "Here:\n\n```python\nprint(1)\n```\n\nDone.\n"


def test_only_the_first_code_block_is_printed(serve, home):
    done = run("stream", "hi", "-x", "-q", home=home, **reach(serve(CODE)))
    assert (done.stdout, done.stderr) == (b"print(1)\n", b"")


def test_an_answer_without_a_code_block_is_printed_with_a_notice(serve, home):
    done = run("stream", "hi", "-x", "-q", home=home, **reach(serve("print(1)")))
    assert done.stdout == b"print(1)"
    assert b"no code block" in done.stderr


def test_only_the_code_block_is_on_a_terminal(serve, home):
    with terminal("stream", "hi", "-x", "-q", home=home, **reach(serve(CODE))) as tty:
        assert tty.end() == 0
        assert tty.screen.text.strip() == "print(1)"


def test_a_code_block_is_no_json(serve, home):
    simulator = serve(CODE)
    assert run("stream", "hi", "-x", "--json", home=home, **reach(simulator)).returncode == 2
    assert simulator.requests == []


@pytest.mark.parametrize("arguments", [["hi there"], ["hello"], ["-s", "Be brief", "hi"], ["--", "stream"], ["-"]])
def test_a_prompt_needs_no_subcommand(serve, home, arguments):
    simulator = serve("yes")
    done = run(*arguments, home=home, stdin=b"piped", **reach(simulator))
    assert done.stdout == b"yes", done.stderr
    expected = {"-": "piped", "--": "piped\n\nstream"}.get(arguments[0], f"piped\n\n{arguments[-1]}")
    assert simulator.requests[0].json["messages"][-1]["content"] == expected


@pytest.mark.parametrize("word", ["strem", "chats", "modles", "bacth", "Decode"])
def test_a_mistyped_subcommand_is_no_prompt(word):
    done = CliRunner().invoke(cli, [word])
    assert done.exit_code == 2
    assert f"no command {word!r}. Did you mean" in done.stderr


def test_help_is_help():
    assert CliRunner().invoke(cli, ["help"]).output == CliRunner().invoke(cli, ["--help"]).output


WAIT = Fault("status_429", headers={"retry-after": "30"}, message="Slow down, please")
WHY = r"rate limit \(429\), attempt 2 of 5 in \d\d s"


def test_a_wait_is_one_line_in_a_pipe(serve, home):
    process = start("stream", "hi", home=home, **reach(serve(faults=WAIT)))
    line = process.stderr.readline().decode()
    assert re.fullmatch(rf"{WHY}: .*Slow down, please.*\n", line), line
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_S) == (b"", b"")
    assert process.returncode == 130


def test_a_wait_is_in_the_status_line_of_a_terminal(serve, home):
    with terminal("stream", "hi", home=home, columns=120, **reach(serve(faults=WAIT))) as tty:
        tty.expect(f"gpt-5.4 . {WHY} . .*Slow down, please")
        tty.interrupt()
        assert tty.end() == 130


def test_a_narrow_terminal_has_the_reason_and_the_time_of_a_wait(serve, home):
    with terminal("stream", "hi", home=home, columns=60, **reach(serve(faults=WAIT))) as tty:
        tty.expect(f"gpt-5.4 . {WHY}")
        tty.interrupt()
        assert tty.end() == 130


def test_the_text_before_a_failure_stays(serve, home):
    done = run("stream", "hi", home=home, **reach(serve("one two three four", faults=Fault("reset", after=3))))
    assert done.returncode == 1
    assert done.stdout == b"one two three"
    assert done.stderr.startswith(b"deluge: openai gpt-5.4: ")
    assert b"Traceback" not in done.stderr


def test_no_key_is_ever_shown(serve, home):
    fault = Fault("status_401", message=f"Incorrect API key provided: {KEY}")
    done = run("stream", "hi", home=home, **reach(serve(faults=fault)))
    assert done.returncode == 1
    assert b"401" in done.stderr
    assert KEY.encode() not in done.stderr


def test_an_answer_that_was_cut_off_at_the_limit_has_a_notice(serve, home):
    done = run("stream", "hi", "--max-tokens", "2", home=home, **reach(serve("one two three four five")))
    assert done.returncode == 0
    assert b"The answer was cut off" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stream", "-m", "gpt-4oo", "hi"], [b"gpt-4oo", b"Did you mean gpt-4o"]),
        (["stream", "--temperature", "9", "hi"], [b"temperature=9"]),
        (["stream", "--temperature", "warm", "hi"], [b"--temperature", b"deluge stream --help"]),
        (["stream", "--timeout-idle", "-1", "hi"], [b"Timeouts.idle"]),
        (["stream", "--base-url", "ftp://x", "hi"], [b"base_url"]),
        (["stream", "--image", "nowhere.png", "hi"], [b"nowhere.png"]),
        (["stream", "--schema", "nowhere.json", "hi"], [b"nowhere.json"]),
        (["stream", ""], [b"the prompt is empty"]),
        (["stream", "--tempreature", "1", "hi"], [b"--temperature"]),
        (["strem", "hi"], [b"strem"]),
    ],
)
def test_wrong_use_is_exit_code_2_and_sends_nothing(serve, home, arguments, words):
    simulator = serve("yes")
    done = run(*arguments, home=home, **reach(simulator))
    assert done.returncode == 2
    assert done.stdout == b""
    assert all(word in done.stderr for word in words), done.stderr
    assert b"Traceback" not in done.stderr
    assert simulator.requests == []


def test_without_a_key_a_pipe_gets_no_answer_and_the_message_names_how(home):
    done = run("stream", "hi", home=home)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"OPENAI_API_KEY is not set, so gpt-5.4 cannot answer" in done.stderr
    assert b"export OPENAI_API_KEY=your-key, or write OPENAI_API_KEY=your-key into .env." in done.stderr
    assert b"--model simulator" in done.stderr


def test_without_a_key_the_simulator_answers_on_a_terminal_with_a_notice_each_time(home):
    for _ in range(2):
        with terminal("stream", "hi", home=home) as tty:
            text = " ".join(tty.expect("You ").split())
            tty.interrupt()
            assert tty.end() == 130
        assert text.startswith("Simulator: no OPENAI_API_KEY is set")
        assert "not gpt-5.4" in text
        assert "export OPENAI_API_KEY=your-key" in text


def test_a_terminal_for_one_output_is_not_enough_to_simulate(home):
    with terminal("stream", "hi", home=home, stdout=home / "out") as tty:
        assert tty.end() == 2
    assert (home / "out").read_bytes() == b""


def test_the_simulator_can_be_asked_by_name_and_never_answers_by_itself_with_a_key(serve, home):
    simulator = serve("the real one")
    assert b"not by a model" in run("stream", "-m", "simulator", "hi", home=home, **reach(simulator)).stderr
    assert simulator.requests == []
    assert run("stream", "hi", home=home, **reach(simulator)).stdout == b"the real one"


def test_an_unknown_model_is_not_simulated(home):
    assert run("stream", "-m", "gpt-4oo", "hi", home=home).returncode == 2


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_server_of_the_user_needs_no_key(serve, home, by):
    simulator = serve("mine")
    if by == "option":
        done = run("stream", "-m", "my-model", "--base-url", simulator.base_url, "hi", home=home)
    else:
        done = run("stream", "hi", home=home, OPENAI_BASE_URL=simulator.base_url)
    assert done.stdout == b"mine", done.stderr
    assert b"Simulator" not in done.stderr


def test_dotenv_of_the_working_folder_is_read(serve, home):
    simulator = serve("yes")
    (home / ".env").write_text(f"OPENAI_API_KEY=from-file-abcd\nOPENAI_BASE_URL={simulator.base_url}\n")
    assert run("stream", "hi", home=home).stdout == b"yes"
    assert simulator.requests[0].headers["authorization"].endswith("abcd")


def test_the_environment_wins_over_dotenv_and_no_key_leaves_with_an_address_from_it(serve, home):
    simulator = serve("yes")
    (home / ".env").write_text(f"OPENAI_API_KEY=from-file-abcd\nOPENAI_BASE_URL={simulator.base_url}\n")
    run("stream", "hi", home=home, OPENAI_API_KEY="from-shell-wxyz")
    assert simulator.requests[0].headers["authorization"].endswith("abcd")
    (home / ".env").write_text("OPENAI_API_KEY=from-file-abcd\n")
    run("stream", "hi", home=home, OPENAI_API_KEY="from-shell-wxyz", OPENAI_BASE_URL=simulator.base_url)
    assert simulator.requests[1].headers["authorization"].endswith("wxyz")
    (home / ".env").write_text(f"OPENAI_BASE_URL={simulator.base_url}\n")
    done = run("stream", "hi", home=home, OPENAI_API_KEY="from-shell-wxyz")
    assert b"not sent to that address" in done.stderr
    assert done.returncode == 2
    assert len(simulator.requests) == 2


def test_dotenv_sets_keys_and_addresses_and_nothing_else(serve, home):
    simulator = serve("yes")
    (home / ".env").write_text("HTTP_PROXY=http://127.0.0.1:9\nSSL_CERT_FILE=/nowhere\nPATH=/nowhere\n")
    done = run("stream", "hi", home=home, OPENAI_API_KEY="k", OPENAI_BASE_URL=simulator.base_url)
    assert done.stdout == b"yes", done.stderr


def test_dotenv_of_a_parent_is_not_read(serve, home):
    (home / ".env").write_text("OPENAI_API_KEY=above\n")
    below = home / "below"
    below.mkdir()
    assert b"OPENAI_API_KEY is not set" in run("stream", "hi", home=below).stderr


def head(simulator, home: Path, count: int) -> list[int]:
    """Return the exit codes of `deluge stream hi | head -c COUNT`."""
    process = start("stream", "hi", home=home, **reach(simulator))
    reader = subprocess.Popen(["head", "-c", str(count)], stdin=process.stdout, stdout=subprocess.PIPE)  # noqa: S603, S607
    process.stdout.close()
    out = reader.communicate(timeout=PATIENCE_S)[0]
    assert len(out) == count
    code = process.wait(PATIENCE_S)
    assert process.stderr.read() == b""
    process.stderr.close()
    return [code, reader.returncode]


def test_head_ends_quietly_and_cancels_upstream(serve, home):
    simulator = serve("word " * 2_000, pace=SLOW)
    assert head(simulator, home, 1) == [141, 0]
    wait_until(lambda: simulator.stats.aborted == 1, "the end upstream")


@pytest.mark.skipif("sys.platform != 'linux'", reason="the end of a reader is only noticed on Linux")
def test_a_reader_that_leaves_is_noticed_while_the_model_is_silent(serve, home):
    simulator = serve("word " * 100, faults=Fault("silence", after=3))
    assert head(simulator, home, 1) == [141, 0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_quietly_and_cancels_upstream(serve, home, number, code):
    simulator = serve("word " * 2_000, pace=SLOW)
    process = start("stream", "hi", home=home, **reach(simulator))
    first = process.stdout.read(4)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert ("word " * 2_000).encode().startswith(first + out)
    assert err == b""
    wait_until(lambda: simulator.stats.aborted == 1, "the end upstream")


def test_the_module_is_the_command(home):
    package = subprocess.run(  # noqa: S603
        [COMMAND[0], "-m", "lm_deluge.cli.main", "--version"],
        capture_output=True,
        env=clean_environment(home),
        timeout=PATIENCE_S,
        check=True,
    )
    assert package.stdout == run("--version", home=home).stdout
    assert package.stdout.startswith(b"deluge ")


def test_an_answer_that_does_not_follow_the_schema_is_printed_and_an_error(serve, home):
    schema = '{"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}'
    simulator = serve(['{"total": "much"}', '{"total": 3}'])
    done = run("stream", "--schema", schema, "How much?", home=home, **reach(simulator))
    assert done.returncode == 1
    assert done.stdout in (
        b'{"total": "much"',
        b'{"total": "much"}',
    )  # the fault is found before or with the last character
    assert b"total: must be of type" in done.stderr
    done = run("stream", "--schema", schema, "--json", "How much?", home=home, **reach(simulator))
    assert (done.returncode, json.loads(done.stdout)["output"]) == (0, {"total": 3})
