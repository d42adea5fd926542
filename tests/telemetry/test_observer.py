"""What observers are notified of, in every kind of call; and what they raise never ends a call."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from client.continued_streams import BREAK, Model
from client.hooks.exceptions import EVERY_EXCEPTION
from lm_deluge import LLMClient
from lm_deluge.config import ClientOptions
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.errors import AuthenticationError, ConfigurationError
from lm_deluge.events import ResponseFinished
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.faults.catalog import Fault
from lm_deluge.telemetry import CallObserver, ObservedCall, Observer, observe_all_calls
from lm_deluge.telemetry.logs import logger
from loopback import END, HEAD, HELLO, RST, chunk, plain, text
from racing import SILENT, racing
from telemetry.recorder import Recorder, client_of, without_pauses

WORDS = "one two three four five six seven eight nine ten"
WHOLE = ["waited", (1, "gpt-4o", None), "first token", "ok"]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(WORDS) as running:
        yield running


async def awaited(client: LLMClient) -> None:
    await client.stream("Hi", echo=None)


async def entered(client: LLMClient) -> None:
    async with client.stream("Hi") as stream:
        async for _ in stream.events():
            pass


async def iterated(client: LLMClient) -> None:
    async for _ in client.stream("Hi"):
        pass


async def in_a_batch(client: LLMClient) -> None:
    await client.process_prompts_async(["Hi"])


async def merged(client: LLMClient) -> None:
    async for _ in client.stream_many(["Hi"]):
        pass


async def as_they_come(client: LLMClient) -> None:
    async for _ in client.answers(["Hi"]):
        pass


async def in_the_background(client: LLMClient) -> None:
    await client.wait_for(client.start_nowait("Hi"))


async def without_asyncio(client: LLMClient) -> None:
    def read() -> None:
        with client.stream_sync("Hi") as stream:
            list(stream)
        client.close_sync()

    await asyncio.to_thread(read)


WAYS = [awaited, entered, iterated, in_a_batch, merged, as_they_come, in_the_background, without_asyncio]


@pytest.mark.parametrize("ask", WAYS, ids=lambda ask: ask.__name__)
async def test_a_call_is_observed_from_start_to_end(sim: Simulator, ask: Callable[[LLMClient], Any]) -> None:
    recorder = Recorder()
    await ask(client_of(sim, recorder))
    call = recorder.only
    assert call.steps == WHOLE
    assert call.call.model == "gpt-4o"
    assert call.call.request is not None
    assert call.call.request.provider.id == "openai"
    assert call.response is not None
    assert call.response.completion == WORDS
    assert call.response.stats is not None
    assert call.first_s == call.response.stats.time_to_first_token
    assert all(wait >= 0 for wait in call.waits)


@pytest.mark.parametrize("ask", [awaited, in_a_batch], ids=lambda ask: ask.__name__)
async def test_reads_are_counted_not_tokens(ask: Callable[[LLMClient], Any]) -> None:
    """Twenty tokens in one segment are one read, also where the caller takes only the response."""
    recorder, go = Recorder(), asyncio.Event()
    steps = [HEAD, chunk(text("a")), go, chunk(*[text(" word")] * 20 + [HELLO]), END]
    async with racing(steps, observers=[recorder], hedge_after=None, model="gpt-4o") as race:
        task = asyncio.create_task(ask(race.client))
        while not recorder.calls or recorder.only.first_s is None:
            await asyncio.sleep(0.001)
        go.set()
        await task
    call = recorder.only
    assert call.response is not None
    assert call.response.stats is not None
    assert call.gaps == [call.response.stats.gap_max]
    assert call.events >= 20


async def test_an_answer_in_one_document() -> None:
    body = b'{"id":"1","model":"m","choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
    recorder = Recorder()
    async with racing(plain("200 OK", body), observers=[recorder], hedge_after=None, model="gpt-4o") as race:
        await race.client.stream("Hi", echo=None)
    assert recorder.only.steps == WHOLE


async def test_a_retry() -> None:
    recorder = Recorder()
    async with Simulator(WORDS, faults=[Fault("status", status=500)]) as sim:
        await awaited(without_pauses(client_of(sim, recorder)))
    assert recorder.only.steps == [
        *("waited", (1, "gpt-4o", None), (1, "ServerError")),
        *("waited", (2, "gpt-4o", "ServerError"), "first token", "ok"),
    ]


async def test_a_failed_call() -> None:
    recorder = Recorder()
    async with Simulator(WORDS, faults=Fault("status", status=401)) as sim:
        with pytest.raises(AuthenticationError) as caught:
            await awaited(client_of(sim, recorder))
        (response,) = await client_of(sim, recorder).process_prompts_async(["Hi"])
    single, row = recorder.calls
    assert single.steps == row.steps == ["waited", (1, "gpt-4o", None), (1, "AuthenticationError"), "error"]
    assert single.response is not None
    assert single.response.error is caught.value
    assert isinstance(response.error, AuthenticationError)


async def test_a_fallback_has_its_own_model() -> None:
    recorder = Recorder()
    async with Simulator(WORDS, faults=[Fault("status", status=404)]) as sim:
        await awaited(without_pauses(client_of(sim, recorder, fallback="gpt-4o-mini")))
    assert recorder.only.steps[3:] == ["waited", (2, "gpt-4o-mini", "NotFoundError"), "first token", "ok"]


async def test_a_stream_that_breaks() -> None:
    recorder = Recorder()
    broken = [HEAD, chunk(text("Hel")), RST]
    async with racing(broken, observers=[recorder], hedge_after=None, model="gpt-4o") as race:
        with pytest.raises(Exception, match=r".") as caught:
            await race.client.stream("Hi", echo=None)
    assert recorder.only.steps[-3:] == ["first token", (1, type(caught.value).__name__), "error"]
    assert recorder.only.response is not None
    assert recorder.only.response.completion == "Hel"


async def test_a_stream_that_starts_again() -> None:
    recorder = Recorder()
    broken = [HEAD, chunk(text("Hel")), RST]
    options: dict[str, Any] = {"observers": [recorder], "hedge_after": None, "model": "gpt-4o", "on_break": "restart"}
    async with racing(broken, [HEAD, chunk(HELLO), END], **options) as race:
        without_pauses(race.client)
        response = await race.client.stream("Hi", echo=None)
    assert response.completion == "Hello world"
    assert [step for step in recorder.only.steps if isinstance(step, tuple)] == [
        (1, "gpt-4o", None),
        (1, "StreamInterruptedError"),
        (2, "gpt-4o", "StreamInterruptedError"),
    ]
    assert recorder.only.steps.count("first token") == 1
    assert recorder.only.steps[-1] == "ok"


async def test_a_stream_that_is_continued() -> None:
    recorder = Recorder()
    async with Simulator(Model(WORDS, cuts=[12]), faults=[BREAK]) as sim:
        client = without_pauses(client_of(sim, recorder, on_break="continue"))
        await client.stream("Tell me.", echo=None)
    call = recorder.only
    assert call.response is not None
    assert call.response.completion == WORDS
    assert [step[0] for step in call.steps if isinstance(step, tuple)] == [1, 1, 2]
    assert call.steps[-1] == "ok"


async def test_a_stream_that_is_resumed_at_the_provider() -> None:
    recorder = Recorder()
    async with Simulator(WORDS, faults=[Fault("reset", after=3)]) as sim:
        client = client_of(sim, recorder, model="openai-responses:gpt-5", background=True)
        response = await without_pauses(client).stream("Hi", echo=None)
    assert response.completion == WORDS
    numbers = [step[0] for step in recorder.only.steps if isinstance(step, tuple)]
    assert numbers == [1, 1, 2]


async def test_a_hedged_call() -> None:
    recorder = Recorder()
    async with racing(SILENT, [HEAD, chunk(HELLO), END], observers=[recorder]) as race:
        await race.begin()
        await race.ring()
        await race.end()
    call = recorder.only
    assert call.steps == [
        *("waited", (1, "gpt-4o", None), (2, "gpt-4o-mini", "Hedge")),
        *("first token", "ok"),
    ]
    assert call.response is not None
    assert call.response.model_internal == "gpt-4o-mini"


async def test_a_call_that_is_left(sim: Simulator) -> None:
    recorder = Recorder()
    client = client_of(sim, recorder)
    async for _ in client.stream("Hi"):
        break
    gc.collect()
    await asyncio.sleep(0)
    stream = client.stream("Hi")
    await stream.next_batch()
    await stream.cancel()
    assert [call.steps[-1] for call in recorder.calls] == ["cancelled", "cancelled"]


async def test_a_task_that_is_cancelled_before_the_first_token() -> None:
    recorder = Recorder()
    async with Simulator(WORDS, faults=Fault("silence", after=0, seconds=None)) as sim:
        task = asyncio.create_task(awaited(client_of(sim, recorder)))
        while not sim.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert recorder.only.steps == ["waited", (1, "gpt-4o", None), "cancelled"]


def test_a_stream_that_is_dropped_after_its_loop_was_closed() -> None:
    """Its end is reported when the next call of the client starts: a finaliser must take no locks."""
    recorder = Recorder()
    with Simulator(WORDS, faults=[Fault("silence", after=3, seconds=None)]).start_in_thread() as sim:
        client = client_of(sim, recorder)

        async def begin() -> Any:
            stream = client.stream("Hi").__aiter__()
            await anext(stream)
            return stream

        dropped = [asyncio.run(begin())]
        dropped.clear()
        gc.collect()
        assert recorder.only.steps[-1] == "first token"
        asyncio.run(awaited(client))
    assert [call.steps[-1] for call in recorder.calls] == ["cancelled", "ok"]
    assert recorder.calls[0].response is not None


async def test_a_call_that_waits_for_the_limits_when_it_is_cancelled(sim: Simulator) -> None:
    recorder = Recorder()
    client = client_of(sim, recorder, max_requests_per_minute=1)
    await awaited(client)
    task = asyncio.create_task(awaited(client))
    while client.dispatcher.runner().waiting == 0:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.calls[1].steps == ["waited", "cancelled"]


async def test_an_answer_of_the_local_cache(sim: Simulator, tmp_path: Path) -> None:
    recorder = Recorder()
    async with client_of(sim, recorder, local_cache=tmp_path / "answers") as client:
        await awaited(client)
        await awaited(client)
    first, second = recorder.calls
    assert first.steps == WHOLE
    assert second.steps == ["cached"]


async def test_a_prompt_that_cannot_be_sent_is_no_call(sim: Simulator) -> None:
    recorder = Recorder()
    (response,) = await client_of(sim, recorder).process_prompts_async([""])
    assert isinstance(response.error, ConfigurationError)
    assert recorder.calls == []


async def test_the_request_of_a_call_that_the_model_cannot_take(sim: Simulator) -> None:
    recorder = Recorder()
    (response,) = await client_of(sim, recorder, reasoning_effort="xhigh").process_prompts_async(["Hi"])
    assert isinstance(response.error, ConfigurationError)
    assert recorder.only.call.request is None
    assert recorder.only.steps == ["waited", "error"]


async def test_observers_run_in_the_context_of_the_caller(sim: Simulator) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    found: list[str] = []

    class Context(Observer):
        def call_started(self, call: ObservedCall) -> None:
            found.append(user.get())

    client = client_of(sim, Context())
    for ask in WAYS:
        user.set(ask.__name__)
        await ask(client)
    assert found == [ask.__name__ for ask in WAYS]


# Registration


async def test_an_observer_of_all_clients(sim: Simulator) -> None:
    everywhere, own = Recorder(), Recorder()
    client = client_of(sim, own)
    stop = observe_all_calls(everywhere)
    try:
        await awaited(client)
    finally:
        stop()
    await awaited(client)
    assert (len(everywhere.calls), len(own.calls)) == (1, 2)
    stop()  # a second time has no effect


@pytest.mark.parametrize("wrong", [Recorder(), [Recorder], ["otel"], [None], "otel", {1: 2}])
def test_what_is_no_list_of_observers(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="observers is not a list"):
        ClientOptions(observers=wrong)


async def test_without_an_observer_nothing_is_watched(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No watch is made, and a caller that takes only the response still gets no turn for each read."""
    monkeypatch.setattr(logger, "propagate", False)  # pytest has a handler
    client = client_of(sim)
    call = StreamCall(client.dispatcher.planner().collected("Hi"), client.dispatcher.runner)
    batches = 0
    while await call.next_batch():
        batches += 1
    assert batches == 1
    assert call._admitted().watch is None
    assert call.response().completion == WORDS


# Containment

METHODS = ["call_started", "waited", "attempt_started", "attempt_failed", "first_token", "read", "ended"]


class Failing(Observer):
    def __init__(self, method: str, error: BaseException) -> None:
        self.method = method
        self.error = error
        self.raised = 0
        self.watcher = type("FailingCall", (CallObserver,), {method: lambda *_: self.fail()})

    def fail(self, *arguments: Any) -> None:
        self.raised += 1
        raise self.error

    def call_started(self, call: ObservedCall) -> CallObserver:
        if self.method == "call_started":
            self.fail()
        return self.watcher()


@pytest.mark.filterwarnings("ignore:the observer Failing")
@pytest.mark.parametrize("error", EVERY_EXCEPTION.values(), ids=EVERY_EXCEPTION)
async def test_whatever_an_observer_raises_the_call_goes_on(error: BaseException) -> None:
    failing, recorder = [Failing(method, error) for method in METHODS], Recorder()
    async with Simulator(WORDS, faults=[Fault("status", status=500)]) as sim, asyncio.timeout(10):
        client = without_pauses(client_of(sim, *failing, recorder))
        response = await client.stream("Hi", echo=None)
        (row,) = await client.process_prompts_async(["Hi"])
    assert (response.completion, row.completion) == (WORDS, WORDS)
    assert [each.method for each in failing if not each.raised] == []
    assert [call.steps[-1] for call in recorder.calls] == ["ok", "ok"]  # the next observer is notified


async def test_a_failing_observer_is_one_warning(sim: Simulator) -> None:
    client = client_of(sim, Failing("ended", RuntimeError("the prompt")))
    with pytest.warns(RuntimeWarning, match="the observer FailingCall raised RuntimeError") as caught:
        await client.process_prompts_async(["one", "two", "three"])
    assert len(caught) == 1
    assert "the prompt" not in str(caught[0].message)


async def test_an_error_at_the_end_of_an_answer_is_the_outcome_of_the_call() -> None:
    recorder = Recorder()
    async with Simulator(Script(text=WORDS, finish_reason="error")) as sim:
        client = LLMClient("gemini-2.5-flash", base_url=sim.url, api_key="k", observers=[recorder])
        async with client.stream("Hi") as stream:
            events = [event async for event in stream.events()]
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == "error"
    assert recorder.only.steps[-2:] == ["first token", "error"]
