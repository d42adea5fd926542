"""Signals that are ignored when the command starts stay ignored; other signals end it, whatever the tests inherited."""

import asyncio
import signal
import subprocess

import pytest

from cli.driver import PATIENCE_S, only_ignoring, start, wait_until
from lm_deluge.cli.interrupts import Interrupts, handle_signals
from lm_deluge.simulator import Pace

TEXT = "word " * 20
PACE = Pace(tokens_per_second=20)  # about a second: time for a signal in the middle of the answer


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": simulator.base_url}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stream_leaves_an_ignored_signal_ignored(serve, home, number):
    process = start("stream", "hi", home=home, ignored=[number], **reach(serve(TEXT, pace=PACE)))
    first = process.stdout.read(4)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, (first + out).decode()) == (0, TEXT), err


def test_chat_leaves_an_ignored_sigint_ignored(serve, home):
    simulator = serve(TEXT, pace=PACE)
    process = start("chat", home=home, stdin=subprocess.PIPE, ignored=[signal.SIGINT], **reach(simulator))
    process.stdin.write(b"hi\n")
    process.stdin.flush()
    first = process.stdout.read(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, (first + out).decode()) == (0, TEXT + "\n")
    assert b"Stopped" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_batch_leaves_an_ignored_signal_ignored(serve, home, number):
    simulator = serve(TEXT, pace=PACE)
    (home / "in.jsonl").write_text('"one"\n"two"\n')
    command = ["batch", "in.jsonl", "out.jsonl", "--progress", "none"]
    process = start(*command, home=home, ignored=[number], **reach(simulator))
    wait_until(lambda: simulator.stats.requests == 2, "the requests")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert b"2 lines, 2 answered" in err


def test_sigterm_ends_a_command_that_ignores_sigint(serve, home):
    process = start("stream", "hi", home=home, ignored=[signal.SIGINT], **reach(serve(TEXT * 50, pace=PACE)))
    process.stdout.read(4)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (143, b"")


def test_children_react_to_signals_that_the_tests_ignore(serve, home):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start("stream", "hi", home=home, **reach(serve(TEXT * 50, pace=PACE)))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
    process.stdout.read(4)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130


@pytest.fixture
def handler():
    """Install a handler of SIGINT, also if the tests ignore the signal."""
    received = []
    previous = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    yield signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, previous)
    assert received == []


async def test_the_callback_runs_in_the_event_loop_and_the_handler_is_restored(handler):
    received: list[tuple[int, asyncio.AbstractEventLoop]] = []
    with handle_signals([signal.SIGINT], lambda number: received.append((number, asyncio.get_running_loop()))):
        signal.raise_signal(signal.SIGINT)
        assert received == []
        await asyncio.sleep(0)
        assert received == [(signal.SIGINT, asyncio.get_running_loop())]
    assert signal.getsignal(signal.SIGINT) is handler


async def test_outside_the_main_thread_nothing_is_changed(handler):
    async def block() -> bool:
        with handle_signals([signal.SIGINT], print):
            return signal.getsignal(signal.SIGINT) is handler

    assert await asyncio.to_thread(asyncio.run, block())


async def test_the_third_signal_has_the_default_action(handler):
    calls: list[str] = []
    interrupts = Interrupts()
    with only_ignoring([]), interrupts.caught(lambda: calls.append("first"), lambda: calls.append("second")):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)
        assert calls == ["first", "second"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (interrupts.count, type(interrupts.end())) == (2, KeyboardInterrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN)
