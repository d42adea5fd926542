"""`deluge stream` on a terminal."""

from pathlib import Path

import pytest

from cli.driver import terminal, wait_until
from lm_deluge.cli.render.markdown import Markdown
from lm_deluge.simulator import Fault, Pace, Script

ANSWER = """\
# Title

Some **bold** words, some `code`, and a line that is longer than the terminal is wide, so that it has to be wrapped.

- one \U0001f600 \u6f22\u5b57
- two

```python
print("x")
```

| a | b |
|---|---|
| 1 | 2 |

end"""
LONG = "".join(f"{ANSWER}\n\nPart {number} is over.\n\n" for number in range(8))
FAST = Pace(tokens_per_second=800)
SLOW = Pace(tokens_per_second=25)


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": simulator.base_url}


def expected(text: str, columns: int, rows: int = 24) -> list[str]:
    markdown = Markdown(columns - 1, rows)
    return ["".join(run.text for run in row).rstrip() for row in (*markdown.feed(text), *markdown.finish())]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 12), (20, 8)])
def test_a_long_answer_is_drawn_once_and_in_order(serve, home, columns, rows):
    simulator = serve(LONG, pace=FAST)
    with terminal("stream", "hi", home=home, columns=columns, rows=rows, **reach(simulator)) as tty:
        assert tty.end() == 0
        lines = tty.screen.text.split("\n")
        wanted = expected(LONG, columns, rows)
        assert lines[: len(wanted)] == wanted
        assert lines[len(wanted) :][0].startswith("gpt-5.4")
        assert "writing" not in tty.screen.text
        assert tty.screen.unknown == []
        assert {"1;4;36", "1", "36", "2"} <= tty.screen.styles


def test_tokens_and_status_appear_while_the_stream_runs(serve, home):
    with terminal("stream", "hi", home=home, **reach(serve("word " * 500, pace=SLOW))) as tty:
        tty.expect(r"^word word")
        text = tty.expect(r"\ngpt-5.4 \u00b7 writing \u00b7 ~\d+ tokens \u00b7 \d+ tokens/s \u00b7 \d+\.\d s")
        assert tty.process.poll() is None
        assert text.count("writing") == 1


def test_the_status_line_is_there_before_the_first_token(serve, home):
    with terminal("stream", "hi", home=home, **reach(serve("x", faults=Fault("silence", after=0)))) as tty:
        tty.expect(r"^gpt-5.4 \u00b7 waiting")


def test_control_characters_are_shown_and_not_obeyed(serve, home):
    evil = "a \x1b[31mred \x1b]0;title\x07 \x9b31m \x00 \x7f \u202eabc\n`\x1b[2J`\n```\n\x1b[K\n```\n"
    script = Script(text=evil, reasoning="think \x1b[5m")
    for option in ("--show-reasoning", "--raw"):
        with terminal("stream", "hi", option, home=home, **reach(serve(script, pace=FAST))) as tty:
            assert tty.end() == 0
            assert tty.screen.unknown == []
            shown = ["\u241b[31mred", "\u241b]0;title\u2407", "\\x9b31m", "\u2400 \u2421 \\u202eabc", "\u241b[2J"]
            assert all(piece in tty.screen.text for piece in shown), tty.screen.text
            assert ("think \u241b[5m" in tty.screen.text) == (option == "--show-reasoning")


def test_raw_has_no_markdown_and_no_escapes(serve, home):
    with terminal("stream", "hi", "--raw", home=home, **reach(serve("**a** `b`", pace=FAST))) as tty:
        assert tty.end() == 0
        assert b"\x1b" not in tty.raw
        assert tty.screen.text.startswith("**a** `b`\ngpt-5.4")


def test_an_error_from_outside_is_shown_and_not_obeyed(serve, home):
    simulator = serve(faults=Fault("status_400", message="bad \x1b[31m thing"))
    with terminal("stream", "hi", home=home, **reach(simulator)) as tty:
        assert tty.end() == 1
        assert "bad \u241b[31m thing" in tty.screen.text
        assert b"\x1b[31m" not in tty.raw


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_and_escapes_can_be_declined(serve, home, env):
    with terminal("stream", "hi", home=home, **{**reach(serve(ANSWER, pace=FAST)), **env}) as tty:
        assert tty.end() == 0
        assert not [style for style in tty.screen.styles if "36" in style]
        assert ("TERM" in env) == (b"\x1b" not in tty.raw)


def test_ctrl_c_leaves_the_piece_and_the_terminal_in_order(serve, home):
    simulator = serve("word " * 500, pace=SLOW)
    with terminal("stream", "hi", home=home, **reach(simulator)) as tty:
        tty.expect(r"word word[\s\S]*writing")
        tty.interrupt()
        assert tty.end() == 130
        assert set(tty.screen.text.split()) <= {"word", "wor"}
        assert tty.screen.column == 0
        wait_until(lambda: simulator.stats.aborted == 1, "the end upstream")


def test_a_failure_ends_the_line_first(serve, home):
    simulator = serve("one two three four", faults=Fault("reset", after=2))
    with terminal("stream", "hi", home=home, **reach(simulator)) as tty:
        assert tty.end() == 1
        assert tty.screen.text.startswith("one two\ndeluge: openai gpt-5.4: ")


def test_a_narrower_window_does_not_repeat_anything(serve, home):
    with terminal(
        "stream", "hi", home=home, columns=80, **reach(serve("- one\n" * 30 + "word " * 60, pace=SLOW))
    ) as tty:
        tty.expect("one")
        tty.resize(30, 24)
        assert tty.end() == 0
        assert tty.screen.text.count("one") == 30
        assert tty.screen.text.count("word") == 60


def test_the_status_is_shown_when_only_the_answer_goes_elsewhere(serve, home):
    target: Path = home / "answer.md"
    simulator = serve(Script(text=ANSWER, reasoning="Let me think."), pace=Pace(tokens_per_second=60))
    options = {"home": home, "stdout": target, **reach(simulator)}
    with terminal("stream", "hi", "--show-reasoning", **options) as tty:
        tty.expect("writing")
        assert tty.end() == 0
        assert target.read_text() == ANSWER
        assert tty.screen.text.startswith("Let me think.\n\ngpt-5.4")
        assert "writing" not in tty.screen.text
