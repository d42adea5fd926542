"""Progress displays of a batch: on a terminal, in a log, as a bar, and none."""

from __future__ import annotations

import asyncio
import builtins
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client.notebook.stub import Notebook
from lm_deluge.client.batch.progress_display import describe, make_progress, shown
from lm_deluge.dispatch.batch.progress import BatchProgress
from lm_deluge.errors import ConfigurationError, MissingExtraError

HALF = BatchProgress(
    total=5_000,
    done=1_250,
    failed=3,
    in_flight=500,
    input_rate=25_300.0,
    output_rate=4_210_000.0,
    cost=1.5,
    projected_cost=6.0,
    remaining_s=4_000.0,
    elapsed_s=1_333.0,
    limited_by="tokens per minute",
    errors={"ServerError": 1, "RateLimitError": 2},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_says_everything() -> None:
    assert describe(HALF) == (
        "1250/5000 (25%), 500 in flight, 25.3k in 4.2M out tokens/s, $1.50 of $6.00, 1:06 h left, "
        "limited by tokens per minute, failed 3: RateLimitError 2, ServerError 1"
    )


def test_a_line_says_no_more_than_is_known() -> None:
    assert describe(BatchProgress()) == "0 done, 0 in 0 out tokens/s, in 0 s"
    assert describe(BatchProgress(total=0)) == "0/0, 0 in 0 out tokens/s, in 0 s"
    assert describe(BatchProgress(total=2, done=2, cost=0.00012, elapsed_s=75)) == (
        "2/2 (100%), 0 in 0 out tokens/s, $0.0001, in 1:15 min"
    )


@pytest.mark.parametrize("kind", ["rich", "plain"])
def test_a_log_gets_lines_without_control_characters(kind: str) -> None:
    log = io.StringIO()
    progress = make_progress(kind, log)
    progress.show(HALF)
    progress.close(HALF)
    assert log.getvalue() == f"{describe(HALF)}\n" * 2
    assert progress.every_s >= 5


def test_a_terminal_is_drawn_anew_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Terminal()
    progress = make_progress("rich", screen)
    for _ in range(3):
        progress.show(HALF)
    progress.close(HALF)
    shown = screen.getvalue()
    assert "1250/5000 (25%), 500 in flight" in shown
    assert "failed 3: RateLimitError 2, ServerError 1" in shown
    assert "\x1b[1A" in shown or "\x1b[2K" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_nothing_is_shown_where_nothing_is_wanted() -> None:
    for kind in (None, "none"):
        screen = Terminal()
        progress = make_progress(kind, screen)
        progress.show(HALF)
        progress.close(HALF)
        assert screen.getvalue() == ""


def test_the_bar_of_tqdm() -> None:
    pytest.importorskip("tqdm")
    screen = Terminal()
    progress = make_progress("tqdm", screen)
    progress.show(HALF)
    progress.close(HALF)
    assert "1250/5000" in screen.getvalue()
    assert "$1.50 of $6.00" in screen.getvalue()


def test_a_bar_that_is_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_tqdm(name: str, *rest: object) -> object:
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_tqdm)
    with pytest.raises(MissingExtraError, match="progress='tqdm' needs the package tqdm"):
        make_progress("tqdm", io.StringIO())


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"progress='bar' is unknown\. Known: rich, tqdm, plain, none\."):
        make_progress("bar")  # type: ignore[arg-type]


KINDS = ("rich", "tqdm", "plain", "none")


class Broken(Terminal):
    """A terminal that can be written `left` times."""

    def __init__(self, left: int, error: type[Exception]) -> None:
        super().__init__()
        self._left = left
        self._error = error

    def write(self, text: str) -> int:
        if self._left <= 0:
            raise self._error
        self._left -= 1
        return super().write(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [BrokenPipeError, ValueError, ZeroDivisionError])
@pytest.mark.parametrize("left", [0, 1, 2, 5])
def test_a_file_that_fails_at_any_write_makes_the_display_quiet(
    kind: str, error: type[Exception], left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    outputs = (sys.stdout, sys.stderr)
    screen = Broken(left, error)
    progress = make_progress(kind, screen)
    for _ in range(4):
        progress.show(HALF)
    progress.close(HALF)
    progress.show(HALF)
    assert (sys.stdout, sys.stderr) == outputs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stderr", [None, object()], ids=["none", "no file"])
def test_without_a_stderr_nothing_is_shown(kind: str, stderr: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    progress = make_progress(kind)
    progress.show(HALF)
    progress.close(HALF)


PARTS = {
    "rich": ("rich.live.Live", ("__init__", "start", "update", "stop")),
    "tqdm": ("tqdm.std.tqdm", ("__new__", "__init__", "set_postfix_str", "refresh", "close")),
}


@pytest.mark.parametrize(("kind", "method"), [(kind, each) for kind, (_, names) in PARTS.items() for each in names])
def test_a_display_of_another_package_may_raise_at_any_call(
    kind: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(kind)

    def fail(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError

    outputs = (sys.stdout, sys.stderr)
    monkeypatch.setattr(f"{PARTS[kind][0]}.{method}", fail)
    progress = make_progress(kind, Terminal())
    for _ in range(2):
        progress.show(HALF)
    progress.close(HALF)
    assert (sys.stdout, sys.stderr) == outputs


def test_a_full_pipe_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as source, open(writer, "w") as pipe:  # noqa: PTH123 - descriptors
        progress = make_progress("plain", pipe)
        for _ in range(2_000):
            progress.show(HALF)
        os.set_blocking(reader, False)
        text = source.read().decode()
        progress.show(HALF)
        assert source.read().decode() == f"{describe(HALF)}\n"
    assert 1 < text.count("\n") < 2_000
    assert text == f"{describe(HALF)}\n" * text.count("\n")


async def test_a_display_is_shown_while_no_call_ends() -> None:
    class Recorder:
        every_s = 0.001

        def __init__(self) -> None:
            self.lines: list[str] = []

        def show(self, progress: BatchProgress) -> None:
            self.lines.append(f"{progress.done} by {progress.limited_by}")

        def close(self, progress: BatchProgress) -> None:
            self.lines.append("end")

    recorder = Recorder()
    async with shown(recorder, lambda: BatchProgress(limited_by="a refusal")), asyncio.timeout(10):
        while len(recorder.lines) < 3:
            await asyncio.sleep(0.001)
    assert recorder.lines[:3] == ["0 by a refusal"] * 3
    assert recorder.lines[-1] == "end"


async def test_counts_that_cannot_be_added_up_do_not_end_the_batch() -> None:
    def fail() -> BatchProgress:
        raise OverflowError

    asked = []

    def snapshot() -> BatchProgress:
        asked.append(1)
        return fail()

    progress = make_progress("none")
    progress.every_s = 0.001
    async with shown(progress, snapshot), asyncio.timeout(10):
        while len(asked) < 3:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", ["rich", "tqdm"])
def test_a_notebook_has_one_output_that_is_updated(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(kind)
    notebook = Notebook(monkeypatch)
    progress = make_progress(kind)
    assert progress.every_s >= 0.1
    for _ in range(3):
        progress.show(HALF)
    progress.close(BatchProgress(done=1, errors={"<b>": 1}))
    (updates,) = notebook.outputs
    assert [each["text/plain"] for each in updates[:3]] == [describe(HALF)] * 3
    assert 'value="1250" max="5000"' in updates[0]["text/html"]
    assert "&lt;b&gt; 1" in updates[-1]["text/html"]
    assert capsys.readouterr() == ("", "")


def test_a_cell_that_cannot_be_displayed_does_not_end_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    Notebook(monkeypatch)
    monkeypatch.delattr(sys.modules["IPython.display"], "display")
    progress = make_progress("rich")
    progress.show(HALF)
    progress.close(HALF)


PROGRAM = """
import sys
from lm_deluge import LLMClient
from lm_deluge.simulator import Simulator

if sys.argv[2] == "none":
    sys.stderr = None
with Simulator("Yes.").start_in_thread() as simulator:
    client = LLMClient("gpt-4o", base_url=simulator.base_url, api_key="any", progress=sys.argv[1])
    print([response.completion for response in client.process_prompts_sync(["q"] * 20)].count("Yes."))
"""


@pytest.mark.parametrize("kind", ["rich", "tqdm", "plain"])
@pytest.mark.parametrize("stderr", ["closed", "none", "reader gone"])
async def test_answers_are_kept_in_a_process_without_a_usable_stderr(kind: str, stderr: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    close: Callable[[], None] | None = (lambda: os.close(2)) if stderr == "closed" else None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, kind, stderr),
        stdout=asyncio.subprocess.PIPE,
        stderr=writer,
        preexec_fn=close,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,
    )
    os.close(writer)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert out == b"20\n"
    assert process.returncode in (0, 120)  # 120: the interpreter could not flush stderr
