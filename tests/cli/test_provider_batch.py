"""`deluge batch --provider-batch`: the provider's own batches, with interruptions of every kind."""

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from cli.driver import PATIENCE_S, run, start, wait_until
from lm_deluge.dispatch.batch.survey import look_through
from lm_deluge.dispatch.journal.records import JournalEntry, JournalState, scan
from lm_deluge.errors import BadRequestError
from lm_deluge.simulator import Batches

LINES = 40
COMMAND = ("batch", "in.jsonl", "out.jsonl", "--progress", "none", "--provider-batch", "--model")


class Script:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, request) -> str:
        text = request.conversation[-1].completion
        self.asked[text] += 1
        if text == "bad" and self.asked[text] == 1:
            raise BadRequestError("This is not valid.", status_code=400)
        return f"answer to {text}"


def reach(simulator, model: str) -> dict[str, str]:
    return {
        "gpt": {"OPENAI_API_KEY": "any-text", "OPENAI_BASE_URL": simulator.base_url},
        "claude": {"ANTHROPIC_API_KEY": "any-text", "ANTHROPIC_BASE_URL": simulator.url},
        "gemini": {"GEMINI_API_KEY": "any-text", "GOOGLE_GEMINI_BASE_URL": simulator.url},
    }[model.partition("-")[0]]


def write(home: Path, *prompts: str) -> None:
    (home / "in.jsonl").write_text("".join(json.dumps({"id": f"id {each}", "prompt": each}) + "\n" for each in prompts))


def answers(home: Path) -> list[dict]:
    return [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]


def texts(home: Path) -> list[str]:
    return [line["response"]["content"]["parts"][0]["text"] for line in answers(home)]


@pytest.mark.parametrize("model", ["gpt-4o", "claude-haiku-4-5", "gemini-2.5-flash"])
def test_lines_are_submitted_and_answered_in_order(model: str, serve, home: Path) -> None:
    script = Script()
    simulator = serve(script, batches=Batches(is_shuffled=True))
    prompts = [f"line {number}" for number in range(LINES)]
    write(home, *prompts)
    done = run(*COMMAND, model, "--report", "report.json", home=home, **reach(simulator, model))
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert texts(home) == [f"answer to {each}" for each in prompts]
    assert [line["id"] for line in answers(home)] == [f"id {each}" for each in prompts]
    assert not [request for request in simulator.requests if request.path.endswith(("completions", "messages"))]
    report = json.loads((home / "report.json").read_text())
    assert (report["answered"], report["ambiguous"]["ids"]) == (LINES, [])
    assert report["cost"] == pytest.approx(sum(line["cost"] for line in answers(home)))
    direct = run(
        "batch", "in.jsonl", "direct.jsonl", "--progress", "none", "-m", model, home=home, **reach(simulator, model)
    )
    assert direct.returncode == 0, direct.stderr
    single = [json.loads(line) for line in (home / "direct.jsonl").read_text().splitlines()]
    assert [2 * line["cost"] for line in answers(home)] == pytest.approx([line["cost"] for line in single])
    again = run(*COMMAND, model, home=home, **reach(simulator, model))
    assert again.stderr.startswith(b"Nothing to do: ")


def test_after_repeated_kills_nothing_is_submitted_twice(serve, home: Path) -> None:
    script, chance = Script(), random.Random(7)
    simulator = serve(script, batches=Batches(seconds=4))
    prompts = [f"line {number}" for number in range(LINES)]
    write(home, *prompts)
    journal = home / "out.jsonl.journal"
    for kills in range(9):
        process = start(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
        if kills < 8:
            wait_until(lambda process=process: journal.exists() or process.poll() is not None, "a journal")
            time.sleep(chance.uniform(0, 0.8))
            process.kill()
        _, stderr = process.communicate(timeout=PATIENCE_S * 3)
        assert process.returncode in (0, -signal.SIGKILL), stderr
        if process.returncode == 0:
            break
    assert process.returncode == 0, stderr
    assert texts(home) == [f"answer to {each}" for each in prompts]
    assert set(script.asked.values()) == {1}


def test_ctrl_c_leaves_the_batch_with_the_provider(serve, home: Path) -> None:
    script = Script()
    simulator = serve(script, batches=Batches(polls=2))
    write(home, "one", "two")
    process = start(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    wait_until(lambda: any(request.method == "GET" for request in simulator.requests), "a poll")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Stopping: the provider continues 2 requests" in stderr
    assert b"0 of 2 lines are done and safe in out.jsonl.journal" in stderr
    done = run(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    assert done.returncode == 0
    assert b"2 lines are in a batch of the provider and will not be sent again." in done.stderr
    assert texts(home) == ["answer to one", "answer to two"]
    assert script.asked == {"one": 1, "two": 1}


def test_lines_that_failed_are_sent_again_with_retry_failed(serve, home: Path) -> None:
    script = Script()
    simulator = serve(script)
    write(home, "one", "bad")
    first = run(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    assert first.returncode == 1
    assert b"1 answered, 1 failed (BadRequestError 1)" in first.stderr
    same = run(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    assert (same.returncode, script.asked["bad"]) == (1, 1)
    last = run(*COMMAND, "gpt-4o", "--retry-failed", home=home, **reach(simulator, "gpt"))
    assert last.returncode == 0, last.stderr
    assert texts(home) == ["answer to one", "answer to bad"]
    assert script.asked == {"one": 1, "bad": 2}


def test_an_expired_batch_ends_and_is_continued_with_retry_failed(serve, home: Path) -> None:
    script = Script()
    simulator = serve(script, batches=Batches(ends="expired", finished=1))
    write(home, "one", "two")
    first = run(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    assert first.returncode == 1
    assert answers(home)[1]["error"]["type"] == "BatchEndedError"
    simulator._router._answers._batches.plan = Batches()
    assert run(*COMMAND, "gpt-4o", "--retry-failed", home=home, **reach(simulator, "gpt")).returncode == 0
    assert texts(home) == ["answer to one", "answer to two"]


def test_a_line_that_cannot_be_read_has_an_error_if_it_is_skipped(serve, home: Path) -> None:
    simulator = serve(Script())
    (home / "in.jsonl").write_text('"one"\nno JSON\n{"id": "x", "prompt": "two", "model": "y"}\n')
    refused = run(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    assert (refused.returncode, simulator.requests) == (2, [])
    done = run(*COMMAND, "gpt-4o", "--skip-bad", home=home, **reach(simulator, "gpt"))
    assert done.returncode == 0, done.stderr
    first, broken, _ = answers(home)
    assert first["error"] is None
    assert broken["error"]["type"] == "InvalidPromptError"


def test_a_refused_key_ends_the_run_and_nothing_is_lost(serve, home: Path) -> None:
    script = Script()
    simulator = serve(script, faults=["status_401"])
    write(home, "one", "two")
    done = run(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    assert done.returncode == 1
    assert b"Incorrect API key" in done.stderr
    assert run(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt")).returncode == 0
    assert script.asked == {"one": 1, "two": 1}


def test_a_provider_without_a_batch_api_is_refused_before_anything_is_sent(serve, home: Path) -> None:
    simulator = serve(Script())
    write(home, "one")
    env = {"MISTRAL_API_KEY": "any-text", "MISTRAL_BASE_URL": simulator.url}
    done = run(*COMMAND, "mistral:mistral-small-latest", home=home, **env)
    assert done.returncode == 2
    assert b"no batch API" in done.stderr
    assert b"anthropic, gemini" in done.stderr
    assert simulator.requests == []
    assert not (home / "out.jsonl.journal").exists()


def test_a_budget_cannot_be_enforced_and_is_refused(serve, home: Path) -> None:
    simulator = serve(Script())
    write(home, "one")
    done = run(*COMMAND, "gpt-4o", "--max-cost", "1", home=home, **reach(simulator, "gpt"))
    assert done.returncode == 2
    assert b"max_cost cannot be enforced in a provider's own batch" in done.stderr
    assert simulator.requests == []


def test_submitted_lines_are_not_sent_one_by_one(serve, home: Path) -> None:
    simulator = serve(Script(), batches=Batches(polls=99))
    write(home, "one")
    process = start(*COMMAND, "gpt-4o", home=home, **reach(simulator, "gpt"))
    wait_until(lambda: any(request.method == "GET" for request in simulator.requests), "a poll")
    process.kill()
    process.communicate()
    other = run(
        "batch", "in.jsonl", "out.jsonl", "--progress", "none", "-m", "gpt-4o", home=home, **reach(simulator, "gpt")
    )
    assert other.returncode == 2
    assert b"belongs to another batch: provider batch was True and is not set" in other.stderr
    state = JournalState()
    with (home / "out.jsonl.journal").open("rb") as file:
        for offset, found in scan(file):
            if isinstance(found, JournalEntry):
                state.add(found, offset)
    (batch,) = state.open_batches
    assert (batch.provider, batch.ids) == ("openai", tuple(look_through(home / "in.jsonl", {}).keys.values()))
