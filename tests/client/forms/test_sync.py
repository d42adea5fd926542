"""Blocking streams, and the thread that runs them: its start, its end, and what may interrupt it."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from typing import Any

import pytest

from cli.driver import only_ignoring
from lm_deluge import LLMClient
from lm_deluge.client.sync import _new_loop
from lm_deluge.errors import StreamConsumedError, StreamInterruptedError
from lm_deluge.simulator import Fault, Simulator
from loopback import HELLO, Loopback, answer


def client_of(url: str, **options: Any) -> LLMClient:
    return LLMClient("openai-compatible:m", base_url=url, api_key="k", **options)


def test_the_result_and_the_text_of_a_blocking_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with Loopback(answer(HELLO)) as server:
        client = client_of(server.url)
        response = client.stream_sync("Hi").result()
        assert (response.completion, response.usage.total_tokens) == ("Hello world", 5)
        assert client.stream_sync("Hi").text == "Hello world"
        with client.stream_sync("Hi") as stream:
            assert next(iter(stream)) == "Hello"
            assert stream.text == "Hello world"  # of the whole answer
            assert stream.result() is not response
            assert stream.result().completion == "Hello world"
        with client.stream_sync("Hi") as stream:
            assert "".join(stream) == "Hello world" == stream.text
        with pytest.raises(StreamConsumedError):
            iter(stream)
        cancelled = client.stream_sync("Hi")
        cancelled.cancel()
        assert (cancelled.text, cancelled.result().completion) == ("", "")
        client.close_sync()
        assert len(server.requests) == 4
    assert capsys.readouterr().out == ""


def test_the_result_of_a_stream_that_breaks_is_its_error() -> None:
    with Simulator("one two three", faults=[Fault("reset", after=1)]).start_in_thread() as sim:
        client = client_of(sim.base_url)
        with pytest.raises(StreamInterruptedError) as caught:
            client.stream_sync("Hi").result()
        assert caught.value.partial.completion == "one"
        client.close_sync()


ENDINGS = {
    "client in a function": """
def main():
    client = make()
    client.process_prompts_sync(["a", "b"])
    with client.stream_sync("x") as stream:
        list(stream)
main()
""",
    "client of the module": """
client = make()
client.process_prompts_sync(["a", "b"])
""",
    "several clients": """
for _ in range(3):
    make().stream_sync("x").result()
""",
    "stream in the middle": """
stream = make().stream_sync("x")
next(iter(stream))
""",
    "batch in another thread": """
import threading, time
client = make(pace=True)
threading.Thread(target=client.process_prompts_sync, args=(["a"] * 3,), daemon=True).start()
time.sleep(0.1)
""",
    "exit": """
make().process_prompts_sync(["a"])
sys.exit(0)
""",
    "interrupt in a batch": """
import os, signal, threading
client = make(pace=True)
threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    client.process_prompts_sync(["a"] * 3)
except KeyboardInterrupt:
    pass
""",
    "interrupt before the start": """
import signal
client = make()
def interrupt(*_):
    raise KeyboardInterrupt
import lm_deluge.client.sync as sync
class Interrupting(sync._Portal):
    def __init__(self):
        raise KeyboardInterrupt
original, sync._Portal = sync._Portal, Interrupting
try:
    client.process_prompts_sync(["a"])
except KeyboardInterrupt:
    sync._Portal = original
client.process_prompts_sync(["a"])
""",
}
START = """
import sys, gc
if sys.argv[2] == "plain":
    sys.modules["uvloop"] = None
from lm_deluge import LLMClient

def make(pace=False):
    url = sys.argv[3] if pace else sys.argv[1]
    return LLMClient("openai-compatible:m", base_url=url, api_key="k", progress=None)
"""


@pytest.fixture(scope="module")
def urls() -> Any:
    """The URLs of a server that answers at once, and of one that never does."""
    with (
        Simulator("one two three").start_in_thread() as sim,
        Simulator(faults="no_answer").start_in_thread() as silent,
    ):
        yield sim.base_url, silent.base_url


@pytest.mark.parametrize("loop", ["plain", "uvloop"])
@pytest.mark.parametrize("name", ENDINGS)
def test_a_program_ends_in_silence(name: str, loop: str, urls: tuple[str, str]) -> None:
    """Without `close_sync`, and with every warning shown."""
    command = [sys.executable, "-W", "always", "-c", START + ENDINGS[name], urls[0], loop, urls[1]]
    with only_ignoring([]):
        run = subprocess.run(command, capture_output=True, timeout=30, check=False)  # noqa: S603
    assert (run.stderr.decode(), run.returncode) == ("", 0)


@pytest.mark.parametrize("module", ["gevent.monkey", "eventlet.patcher"])
@pytest.mark.parametrize("is_patched", [True, False])
def test_green_threads_get_the_plain_loop(module: str, is_patched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = pytest.importorskip("uvloop")
    fake = types.ModuleType(module)
    fake.is_module_patched = lambda name: is_patched and name == "threading"  # type: ignore[attr-defined]
    fake.is_monkey_patched = lambda name: is_patched and name == "thread"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, fake)
    loop = _new_loop()
    assert isinstance(loop, uvloop.Loop) != is_patched
    loop.close()


def test_threads_share_the_loop() -> None:
    with Loopback(answer(HELLO)) as server:
        client = client_of(server.url)
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(client.stream_sync("Hi").text)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        client.close_sync()
    assert found == ["Hello world"] * 5
