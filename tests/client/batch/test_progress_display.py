"""Progress displays of a batch: on a terminal, in a log, as a bar, and none."""

from __future__ import annotations

import builtins
import io

import pytest

from lm_deluge.client.batch.progress_display import describe, make_progress
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
