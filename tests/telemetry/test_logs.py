"""The logger `lm_deluge`: what is written at which level, and that it costs nothing where nothing is written."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lm_deluge.errors import AuthenticationError
from lm_deluge.simulator import Simulator
from lm_deluge.simulator.faults.catalog import Fault
from lm_deluge.telemetry.logs import LogObserver, logger
from lm_deluge.telemetry.observer import ObservedCall
from telemetry.recorder import client_of, without_pauses

WORDS = "one two three"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(WORDS, faults=[Fault("status", status=500)]) as running:
        yield running


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in caplog.records if record.name == "lm_deluge"]


async def test_the_levels_of_a_call_with_a_retry(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lm_deluge"):
        await without_pauses(client_of(sim)).stream("Hi", echo=None)
    assert lines(caplog) == [
        ("DEBUG", "request to gpt-4o"),
        ("DEBUG", "attempt 1 at gpt-4o failed"),
        ("INFO", "attempt 2 at gpt-4o, after ServerError"),
        ("DEBUG", "call of gpt-4o: ok"),
    ]
    _, failed, retry, end = (vars(record) for record in caplog.records if record.name == "lm_deluge")
    assert (failed["error_type"], failed["status"], failed["attempt"]) == ("ServerError", 500, 1)
    assert failed["request_id"].startswith("req_sim")
    assert (retry["model"], retry["provider"], retry["attempt"], retry["reason"]) == (
        *("gpt-4o", "openai", 2, "ServerError"),
    )
    assert (end["outcome"], end["attempts"], end["input_tokens"] > 0, end["cost"] > 0) == ("ok", 2, True, True)


async def test_a_failed_call_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with Simulator(WORDS, faults=Fault("status", status=401)) as sim:
        with caplog.at_level(logging.WARNING, "lm_deluge"), pytest.raises(AuthenticationError):
            await client_of(sim).stream("Hi", echo=None)
    assert lines(caplog) == [("WARNING", "call of gpt-4o failed: AuthenticationError")]
    record = vars(caplog.records[-1])
    assert (record["outcome"], record["status"], record["model"]) == ("error", 401, "gpt-4o")


async def test_an_answer_is_one_line_at_most(caplog: pytest.LogCaptureFixture) -> None:
    async with Simulator(WORDS) as sim:
        with caplog.at_level(logging.INFO, "lm_deluge"):
            await client_of(sim).process_prompts_async(["one", "two"])
    assert lines(caplog) == []


def test_the_logger_has_a_handler_that_writes_nothing() -> None:
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]


def unobserved(conversation: object = None) -> ObservedCall:
    return ObservedCall(conversation, lambda: ["m"], lambda _: pytest.fail("planned"))  # type: ignore[arg-type]


def test_without_a_handler_calls_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    assert LogObserver().call_started(unobserved()) is None
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler()])
    assert LogObserver().call_started(unobserved()) is not None
    monkeypatch.setattr(logger, "level", logging.ERROR)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        assert LogObserver().call_started(unobserved()) is None
    finally:
        monkeypatch.undo()
        logger.manager._clear_cache()  # type: ignore[attr-defined]


def test_a_program_without_logging_prints_nothing(tmp_path: Path) -> None:
    program = """
import asyncio
from lm_deluge import LLMClient
from lm_deluge.simulator import Simulator
from lm_deluge.simulator.faults.catalog import Fault

async def main():
    async with Simulator(faults=Fault("status", status=401)) as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, api_key="k", progress="none")
        (response,) = await client.process_prompts_async(["Hi"])
        assert response.is_error

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_telemetry_is_imported_without_its_packages() -> None:
    """`import lm_deluge` and a call need neither OpenTelemetry nor Prometheus."""
    program = (
        "import sys, lm_deluge, lm_deluge.client.client, lm_deluge.telemetry.otel, lm_deluge.telemetry.prometheus\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus'))]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")
