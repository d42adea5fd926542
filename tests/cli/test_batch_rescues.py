"""`deluge batch` with answers that break off, are silent or slow."""

import json

import pytest

from cli.test_batch import batch, lines_of, reach, texts_of, write
from lm_deluge.simulator import Fault, Script

TEXT = "one two three four"


@pytest.mark.parametrize("more", [(), ("--on-break", "restart")])
def test_an_answer_that_breaks_off_is_requested_again(serve, home, more):
    simulator = serve(Script(text=TEXT), faults=[Fault("reset", after=2)])
    write(home, '"q"\n')
    assert batch(home, *more, **reach(simulator)).returncode == 0
    assert texts_of(home) == [TEXT]
    assert simulator.stats.requests == 2


def test_an_answer_that_breaks_off_is_continued(serve, home):
    def whole_or_rest(request) -> Script:
        return Script(text=TEXT if len(request.conversation) == 1 else "three four")

    simulator = serve(whole_or_rest, faults=[Fault("reset", after=2)])
    write(home, '"q"\n')
    done = batch(home, "--on-break", "continue", **reach(simulator))
    assert (done.returncode, texts_of(home)) == (0, [TEXT])
    assert "one two" in str(simulator.requests[1].json["messages"])


def test_an_answer_that_breaks_off_fails_its_line(serve, home):
    simulator = serve(Script(text=TEXT), faults=[Fault("reset", after=2)])
    write(home, '"q"\n')
    assert batch(home, "--on-break", "raise", **reach(simulator)).returncode == 1
    (line,) = lines_of(home)
    assert line["error"]["partial"]["content"]["parts"][0]["text"].startswith("one two")
    assert simulator.stats.requests == 1


def test_a_silent_attempt_is_hedged(serve, home):
    simulator = serve(Script(text=TEXT), faults=[Fault("no_answer")])
    write(home, '"q"\n')
    done = batch(home, "--hedge-after", "0.2", "--report", "report.json", **reach(simulator))
    assert (done.returncode, texts_of(home)) == (0, [TEXT])
    assert simulator.stats.requests == json.loads((home / "report.json").read_text())["requests"] == 2


def test_a_slow_attempt_is_cancelled(serve, home):
    simulator = serve(Script(text="word " * 40), faults=[Fault("drip", seconds=0.01)])
    write(home, '"q"\n')
    done = batch(home, "--min-tokens-per-second", "500", "--max-attempts", "2", **reach(simulator))
    assert (done.returncode, texts_of(home)) == (0, ["word " * 40])
    assert simulator.stats.requests == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--hedge-after", "soon"), "hedge_after='soon' is neither a number of seconds above 0 nor a percentile"),
        (("--hedge-after", "1", "--max-attempts", "1"), "hedge_after needs a second attempt"),
        (("--min-tokens-per-second", "0"), "min_tokens_per_second=0.0 is not"),
        (("--on-break", "continue", "--provider-batch"), "--on-break cannot be used together with --provider-batch"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_sent(serve, home, more, message):
    simulator = serve(Script(text=TEXT))
    write(home, '"q"\n')
    done = batch(home, *more, **reach(simulator))
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert simulator.stats.requests == 0
