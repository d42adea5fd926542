"""Typed answers of single streams through real sockets: validation, asking again, costs, faults and the local cache."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client.continued_streams import hurried
from grammar import check_grammar
from lm_deluge import Conversation, LLMClient, Tool
from lm_deluge.client.stream import Stream
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.errors import ConfigurationError, DelugeError, OutputError, StreamInterruptedError
from lm_deluge.events import (
    Attempt,
    Event,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.outputs.answer_type import answer_type
from lm_deluge.outputs.typed_call import OutputRules, TypedCall
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats
from lm_deluge.simulator import Fault, Script, Simulator
from lm_deluge.usage import Usage
from loopback import END, HANG, HEAD, NEXT, Loopback, answer, chunk, finish
from loopback import text as delta
from outputs.invoices import DATA, EARLY, INVOICE, NEGATIVE, TEXT, Invoice, Line, text_with


def client_of(url: str, model: str = "gpt-4o", **options: Any) -> LLMClient:
    return LLMClient(model, base_url=url, **{"api_key": "sk-test", "progress": "none", **options})


async def items_until_error(items: AsyncIterator[Any], found: list[Any]) -> None:
    async for item in items:
        found += [item]


async def test_each_form_of_a_stream_gives_the_object() -> None:
    async with Simulator(TEXT) as sim, client_of(sim.base_url) as client:
        response = await client.stream("x", output=Invoice, echo=None)
        assert response.output == INVOICE
        stream = client.stream("x", output=Invoice)
        assert "".join([token async for token in stream]) == TEXT
        assert stream.response.output == INVOICE
        async with client.stream("x", output=Invoice) as stream:
            events = [event async for event in stream.events()]
        check_grammar(events)
        assert stream.response.output == INVOICE
        partials = [each async for each in client.stream("x", output=Invoice).partials()]
        fields = [each async for each in client.stream("x", output=Invoice).fields()]
        lines = [each async for each in client.stream("x", output=Invoice).items("lines")]
        schema = sim.requests[0].json["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert partials[-1] == DATA
    assert partials[0] == {}
    assert dict(fields)["lines",] == INVOICE.lines
    assert len(dict(fields)) == len(fields)
    assert lines == INVOICE.lines


def test_each_form_without_asyncio() -> None:
    with Simulator(TEXT).start_in_thread() as sim:
        client = client_of(sim.base_url)
        assert client.stream_sync("x", output=Invoice).result().output == INVOICE
        assert list(client.stream_sync("x", output=Invoice).items("lines")) == INVOICE.lines
        assert list(client.stream_sync("x", output=Invoice).partials())[-1] == DATA
        assert dict(client.stream_sync("x", output=Invoice).fields())["total",] == 3.5
        with pytest.raises(ConfigurationError, match="no list at total"):
            client.stream_sync("x", output=Invoice).items("total")
        client.close_sync()


async def test_a_view_needs_an_output_and_a_list() -> None:
    async with Simulator(TEXT) as sim, client_of(sim.base_url) as client:
        for name in ("partials", "fields", "items"):
            with pytest.raises(ConfigurationError, match="no typed answer"):
                getattr(client.stream("x"), name)()
        with pytest.raises(ConfigurationError, match="has no 'linez'"):
            client.stream("x", output=Invoice).items("linez")
        for options in ({"max_output_retries": -1}, {"max_output_retries": True}, {"check_partial": 5}):
            with pytest.raises(ConfigurationError):
                client.stream("x", output=Invoice, **options)
        assert sim.stats.requests == 0


async def test_an_invalid_answer_is_an_error_that_shows_where() -> None:
    async with Simulator(NEGATIVE) as sim, client_of(sim.base_url) as client:
        with pytest.raises(OutputError, match=r"not a valid Invoice: total: .*the total is negative") as caught:
            await client.stream("x", output=Invoice, echo=None)
        assert sim.stats.requests == 1
    error = caught.value
    assert error.path == ("total",)
    assert error.value == {**DATA, "total": -1}
    assert (error.model, error.attempts) == ("gpt-4o", 1)
    assert error.partial is not None
    assert error.partial.output == {**DATA, "total": -1}
    assert error.partial.completion == NEGATIVE
    assert error.partial.usage is not None


async def test_the_response_of_a_failed_stream_raises_its_error() -> None:
    async with Simulator(NEGATIVE) as sim, client_of(sim.base_url) as client:
        stream = client.stream("x", output=Invoice)
        with pytest.raises(OutputError):
            await items_until_error(stream.fields(), [])
        with pytest.raises(OutputError, match="negative"):
            _ = stream.response.output


async def test_the_first_invalid_value_stops_the_stream_at_once() -> None:
    """The rest never comes: a stream that waited for it would hang."""
    async with (
        Loopback([HEAD, chunk(delta(EARLY[:300])), HANG]) as server,
        asyncio.timeout(10),
        client_of(server.url) as client,
    ):
        with pytest.raises(OutputError, match="total") as caught:
            await client.stream("x", output=Invoice, echo=None)
    assert "stopped at the first invalid value" in str(caught.value)
    assert caught.value.billed == "maybe"


async def test_or_the_answer_goes_on_to_its_end() -> None:
    async with Simulator(EARLY) as sim, client_of(sim.base_url) as client:
        stream = client.stream("x", output=Invoice, stop_on_invalid=False)
        texts: list[str] = []
        with pytest.raises(OutputError):
            await items_until_error(aiter(stream), texts)
    assert "".join(texts) == EARLY


async def test_asked_again_with_the_error_and_all_answers_are_paid() -> None:
    async with Simulator([NEGATIVE, text_with(total=None), TEXT]) as sim, client_of(sim.base_url) as client:
        stream = client.stream("How much?", output=Invoice, max_output_retries=2)
        events = [event async for event in stream.events()]
        single = await client.stream("How much?", echo=None)
        requests = [request.json for request in sim.requests]
    check_grammar(events)
    notes = [event for event in events if isinstance(event, Attempt)]
    assert [(note.number, note.error, note.goes_on, note.model) for note in notes] == [
        (2, "OutputError", False, "gpt-4o"),
        (3, "OutputError", False, "gpt-4o"),
    ]
    assert "the total is negative" in notes[0].message
    response = stream.response
    assert (response.output, response.completion, response.error) == (INVOICE, TEXT, None)
    assert response.stats is not None
    assert response.stats.attempts == 3
    assert [each["role"] for each in requests[2]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert requests[1]["messages"][1]["content"] == NEGATIVE
    assert "the total is negative" in requests[1]["messages"][2]["content"]
    assert "Field required" in requests[2]["messages"][4]["content"]
    usage = response.usage
    assert usage is not None
    assert single.usage is not None
    assert usage.output_tokens > 2 * single.usage.output_tokens
    reported = [event.usage for event in events if isinstance(event, UsageReported)]
    assert reported[-1].output_tokens == usage.output_tokens
    assert response.cost is not None
    assert response.cost > 2 * (single.cost or 0)


async def test_after_the_last_retry_the_error_has_the_cost_of_all() -> None:
    async with Simulator(NEGATIVE) as sim, client_of(sim.base_url) as client:
        once = await client.stream("x", echo=None)
        with pytest.raises(OutputError) as caught:
            await client.stream("x", output=Invoice, echo=None, max_output_retries=1)
        assert sim.stats.requests == 3
    assert caught.value.attempts == 2
    assert caught.value.partial is not None
    assert caught.value.partial.cost is not None
    assert caught.value.partial.cost > 2 * (once.cost or 0)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (Script(refusal="No."), "the model refused to answer"),
        (Script(text=TEXT[:30], finish_reason="length"), "token limit before this value was complete"),
        (Script(text="", finish_reason="content_filter"), "content filter"),
    ],
)
async def test_what_would_end_in_the_same_way_is_not_asked_again(script: Script, words: str) -> None:
    async with Simulator(script) as sim, client_of(sim.base_url) as client:
        with pytest.raises(OutputError, match=words) as caught:
            await client.stream("x", output=Invoice, echo=None, max_output_retries=3)
        assert sim.stats.requests == 1
    if script.text:
        assert caught.value.value == {"number": "7"} | ({"lines": [{}]} if "lines" in TEXT[:30] else {})
        assert "max_new_tokens" in str(caught.value)


async def test_a_budget_covers_all_answers() -> None:
    async with Simulator(NEGATIVE) as sim, client_of(sim.base_url) as client:
        once = await client.stream("x", echo=None)
        with pytest.raises(DelugeError, match="max_cost") as caught:
            await client.stream("x", output=Invoice, echo=None, max_output_retries=5, max_cost=1.5 * (once.cost or 0))
        assert sim.stats.requests < 5
    assert not isinstance(caught.value, OutputError)


async def test_a_check_may_see_the_object_so_far() -> None:
    seen: list[Any] = []

    def check(partial: Any) -> None:
        seen.append(partial)
        if len(partial.get("lines", [])) > 1:
            raise ValueError("one line is enough")

    async with Simulator(TEXT) as sim, client_of(sim.base_url) as client:
        with pytest.raises(OutputError, match="one line is enough") as caught:
            await client.stream("x", output=Invoice, echo=None, check_partial=check)
    assert seen[0] == {}
    assert seen[-1] == caught.value.value


async def test_tool_calls_are_no_answer_yet() -> None:
    tool = Tool(name="look", parameters={"type": "object"})
    script = Script(text="Let me look.", tool_calls=[("look", {})])
    async with Simulator(script) as sim, client_of(sim.base_url) as client:
        response = await client.stream("x", output=Invoice, tools=[tool], echo=None)
    assert (response.finish_reason, response.output, response.error) == ("tool_calls", None, None)
    assert [call.name for call in response.tool_calls] == ["look"]


async def test_text_before_a_tool_call_may_look_like_an_answer() -> None:
    tool = Tool(name="look", parameters={"type": "object"})
    script = Script(text='I look it up: {"total": "unknown", "more": []}', tool_calls=[("look", {})])
    async with Simulator(script) as sim, client_of(sim.base_url) as client:
        response = await client.stream("x", output=Invoice, tools=[tool], echo=None)
    assert (response.output, response.error, len(response.tool_calls)) == (None, None, 1)


# Faults

BREAKING = ("cut_chunk", "reset", "clean_truncation", "close_truncation", "in_band_error_mid")


@pytest.mark.parametrize("fault", BREAKING)
async def test_a_broken_stream_gives_the_object_so_far(fault: str) -> None:
    async with (
        Simulator(TEXT, faults=Fault(fault, after=16)) as sim,
        hurried(client_of(sim.base_url, max_attempts=1)) as client,
    ):
        stream = client.stream("x", output=Invoice)
        partials: list[Any] = []
        with pytest.raises(DelugeError) as caught:
            await items_until_error(stream.partials(), partials)
    error = caught.value
    assert not isinstance(error, OutputError)
    assert error.partial is not None
    assert error.partial.output == partials[-1]
    assert error.partial.output["number"] == "7"
    assert "total" not in error.partial.output


@pytest.mark.parametrize("name", ["stream", "batch"])
async def test_an_answer_that_starts_again_is_read_again(name: str) -> None:
    async with (
        Simulator(TEXT, faults=[Fault("cut_chunk", after=16)]) as sim,
        hurried(client_of(sim.base_url, on_break="restart")) as client,
    ):
        if name == "stream":
            stream = client.stream("x", output=Invoice)
            fields = [each async for each in stream.fields()]
            response = stream.response
            assert fields[-1] == (("total",), 3.5)
        else:
            (response,) = await client.process_prompts_async(["x"], output=Invoice)
        assert sim.stats.requests == 2
    assert response.output == INVOICE


async def test_a_fault_during_the_second_answer() -> None:
    async with (
        Simulator([NEGATIVE, TEXT], faults=["none", Fault("cut_chunk", after=16)]) as sim,
        hurried(client_of(sim.base_url, max_attempts=1)) as client,
    ):
        with pytest.raises(StreamInterruptedError) as caught:
            await client.stream("x", output=Invoice, echo=None, max_output_retries=1)
    error = caught.value
    assert error.attempts == 2
    assert error.partial is not None
    assert error.partial.output["number"] == "7"
    assert "total" not in error.partial.output


async def test_cancelled_between_two_answers() -> None:
    async with (
        Loopback(answer(delta(NEGATIVE), finish()), [HANG]) as server,
        asyncio.timeout(10),
        client_of(server.url) as client,
    ):
        stream = client.stream("x", output=Invoice, max_output_retries=3)
        reading = asyncio.create_task(stream.read_to_end())
        while len(server.requests) < 2:
            await asyncio.sleep(0)
        partial = await stream.cancel()
        await reading
    assert partial.usage is not None
    assert partial.usage.estimated
    assert len(server.requests) == 2


async def test_leaving_a_view_ends_the_request() -> None:
    async with (
        Loopback([HEAD, chunk(delta(TEXT[:40])), HANG]) as server,
        asyncio.timeout(10),
        client_of(server.url) as client,
    ):
        async for path, value in client.stream("x", output=Invoice).fields():
            assert (path, value) == (("number",), "7")
            break
        while server.open:
            await asyncio.sleep(0.01)


# Local cache and plain data


class Shelf:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


@pytest.mark.parametrize("kind", ["stream", "batch"])
async def test_only_valid_answers_are_cached(kind: str) -> None:
    shelf = Shelf()

    async def ask(client: LLMClient, **options: Any) -> APIResponse:
        if kind == "stream":
            return await client.stream("x", output=Invoice, echo=None, **options)
        return (await client.process_prompts_async(["x"], output=Invoice, **options))[0]

    async with Simulator([NEGATIVE, NEGATIVE, TEXT, TEXT]) as sim:
        async with client_of(sim.base_url, local_cache=shelf) as client:
            if kind == "stream":
                with pytest.raises(OutputError):
                    await ask(client)
            else:
                assert isinstance((await ask(client)).error, OutputError)
            assert shelf.values == {}
            assert (await ask(client, max_output_retries=1)).output == INVOICE
            assert len(shelf.values) == 1  # of the second question, which has the error
            assert (await ask(client)).output == INVOICE
            hit = await ask(client)
        assert sim.stats.requests == 4
    assert (hit.output, hit.local_cache_hit) == (INVOICE, True)


async def test_a_cached_answer_that_the_type_rejects_by_now_is_asked_for_again() -> None:
    shelf = Shelf()
    async with Simulator([TEXT, text_with(total=5)]) as sim, client_of(sim.base_url, local_cache=shelf) as client:
        await client.stream("x", output=Invoice, echo=None)
        (key,) = shelf.values
        shelf.values[key] = shelf.values[key].replace(b"3.5", b"-35", 1)
        response = await client.stream("x", output=Invoice, echo=None)
        assert (response.output.total, response.local_cache_hit) == (5, False)
        assert sim.stats.requests == 2


async def test_an_answer_with_null_for_a_missing_field_is_cached() -> None:
    shelf = Shelf()
    text = text_with(note="-").replace('"-"', "null")
    async with Simulator(text) as sim, client_of(sim.base_url, local_cache=shelf) as client:
        for _ in range(2):
            assert (await client.stream("x", output=Invoice, echo=None)).output == INVOICE
        assert sim.stats.requests == 1


async def test_a_rejected_answer_gives_its_connection_to_the_next_request() -> None:
    whole = HEAD + chunk(delta(NEGATIVE) + finish()) + END  # in one read: an answer that goes on is stopped
    async with Loopback([whole, NEXT]) as server, client_of(server.url) as client:
        for _ in range(2):
            with pytest.raises(OutputError):
                await client.stream("x", output=Invoice, echo=None, max_output_retries=1)
        assert (len(server.requests), server.connections) == (4, 1)


async def test_postprocess_decides_last_what_is_cached() -> None:
    shelf = Shelf()

    def reject(response: APIResponse) -> APIResponse:
        assert response.output == INVOICE
        raise RuntimeError("no")

    async with Simulator(TEXT) as sim, client_of(sim.base_url, local_cache=shelf, postprocess=reject) as client:
        (response,) = await client.process_prompts_async(["x"], output=Invoice)
    assert response.is_error
    assert shelf.values == {}


async def test_a_cached_answer_that_postprocess_rejects_is_asked_for_again() -> None:
    shelf = Shelf()

    def check(response: APIResponse) -> APIResponse:
        if response.output.total < 5:
            raise RuntimeError("too little")
        return response

    async with Simulator([TEXT, text_with(total=5)]) as sim:
        async with client_of(sim.base_url, local_cache=shelf) as client:
            await client.process_prompts_async(["x"], output=Invoice)
        async with client_of(sim.base_url, local_cache=shelf, postprocess=check) as client:
            (response,) = await client.process_prompts_async(["x"], output=Invoice)
        assert sim.stats.requests == 2
    assert (response.error, response.output.total) == (None, 5)


async def test_a_response_as_plain_data_and_as_a_pickle() -> None:
    async with Simulator([TEXT, NEGATIVE]) as sim, client_of(sim.base_url) as client:
        good, bad = await client.process_prompts_async(["x", "y"], output=Invoice)
    good, bad = sorted((good, bad), key=lambda each: each.is_error)
    restored = APIResponse.from_dict(json.loads(json.dumps(good.to_dict())))
    assert restored.output == DATA
    assert pickle.loads(pickle.dumps(good)).output == INVOICE  # noqa: S301 - our own bytes
    error = APIResponse.from_dict(json.loads(json.dumps(bad.to_dict()))).error
    assert isinstance(error, OutputError)
    assert (error.path, error.problems) == (bad.error.path, bad.error.problems)
    pickled = pickle.loads(pickle.dumps(bad))  # noqa: S301 - our own bytes
    with pytest.raises(OutputError, match="negative"):
        _ = pickled.output


async def test_the_finish_has_the_warnings() -> None:
    async with Simulator(f"Sure:\n```json\n{TEXT}\n```") as sim, client_of(sim.base_url) as client:
        stream = client.stream("x", output=Invoice)
        events = [event async for event in stream.events()]
    assert isinstance(events[-1], ResponseFinished)
    assert set(events[-1].warnings) == {"text_before_json", "json_in_fence"}
    assert set(stream.response.warnings) == {"text_before_json", "json_in_fence"}
    assert "".join(each.text for each in events if isinstance(each, TextDelta)).startswith("Sure")


async def test_a_list_as_the_whole_answer() -> None:
    async with Simulator(json.dumps({"value": DATA["lines"]})) as sim, client_of(sim.base_url) as client:
        stream = client.stream("x", output=list[Line])
        assert [line async for line in stream.items()] == INVOICE.lines
        assert stream.response.output == INVOICE.lines


# Several rounds as one call


class TwoRounds:
    """A call of two rounds: a tool call after some text, and then the answer of the next script."""

    def __init__(self, texts: list[str]) -> None:
        text = texts.pop(0)
        self._batches: list[list[Event]] = [
            [ResponseStarted("a"), TextDelta('{"number": "0"} Let me look.')],
            [ToolCallStarted(0, "c", "look"), ToolCallDelta(0, "{}"), ToolCallFinished(0, "c", "look", "{}", {})],
            [TextDelta(text[:20])],
            [TextDelta(text[20:]), UsageReported(Usage(input_tokens=1, output_tokens=2)), ResponseFinished("stop")],
        ]
        self._builder = ResponseBuilder()

    async def next_batch(self) -> list[Event]:
        events = self._batches.pop(0) if self._batches else []
        self._builder.add_all(events)
        return events

    async def close(self) -> None: ...

    async def settle(self) -> None: ...

    def abort(self) -> None: ...

    def abort_from_anywhere(self) -> None: ...

    def response(self) -> APIResponse:
        response = self._builder.response("m")
        response.stats = self.stats()
        response.cost = 0.5
        return response

    def stats(self) -> StreamStats:
        return StreamStats(attempts=2)

    @property
    def pending_retry(self) -> None:
        return None


async def test_the_last_round_of_several_has_the_object() -> None:
    texts, specs = [NEGATIVE, TEXT], []

    def open_rounds(spec: CallSpec, find_runner: Any) -> Any:
        specs.append(spec)
        return TwoRounds(texts)

    class Unused:
        def plan(self, *_: Any) -> Any: ...

        def plan_rest(self, *_: Any) -> Any: ...

    spec = CallSpec(planner=Unused(), conversation=Conversation.user("How much?"))
    rules = OutputRules(kind=answer_type(Invoice), max_retries=1, stops_early=False)
    stream = Stream(TypedCall(rules, open_rounds, spec, lambda: None), None)  # type: ignore[arg-type, return-value]
    events = [event async for event in stream.events()]
    kinds = [type(event) for event in events]
    assert (kinds.count(ResponseStarted), kinds.count(ResponseFinished)) == (1, 1)
    response = stream.response
    assert response.output == INVOICE
    assert response.cost == 1.0
    assert response.usage is not None
    assert response.usage.output_tokens == 4
    assert response.stats is not None
    assert response.stats.attempts == 4
    assert [event.number for event in events if isinstance(event, Attempt)] == [3]
    assert [message.role for message in specs[1].conversation] == ["user", "assistant", "user"]
    assert specs[1].conversation[1].tool_calls == ()
