"""Filters through real sockets: no way to take an answer bypasses them, and a stop ends the request."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from client.continued import PROSE
from client.continued_streams import BREAK, Model, check_joined, events_of, hurried
from grammar import check_grammar
from lm_deluge import LLMClient, SamplingParams
from lm_deluge.adapters.batch_api import BatchResult
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.request import build_call
from lm_deluge.dispatch.batch.provider.response import BatchedCall, build_batched_answer
from lm_deluge.errors import ConfigurationError, FilterError, JournalError, StreamInterruptedError
from lm_deluge.events import Event, ResponseFinished, TextDelta
from lm_deluge.filters import Guard, RaiseAt, ReasoningTags, Redact, StopAt
from lm_deluge.filters.compiled import compile_filters
from lm_deluge.filters.rules import Filter
from lm_deluge.models.registry import find_served_model
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.faults.catalog import Fault
from loopback import HANG, HEAD, RST, Loopback, chunk, text

SECRET = "sk-abcdefghij"
KEY = Redact(r"sk-[a-z]{8,}", "[key]", max_length=40, arguments=True)
SCRIPT = Script(
    reasoning=f"Think of {SECRET}.",
    text=f"The key is {SECRET}, keep it.",
    tool_calls=[("store", {"value": SECRET})],
)
APIS = {
    "openai-compatible:m": "/v1",
    "openai-responses:gpt-5": "/v1",
    "anthropic:m": "",
    "gemini:gemini-3-pro": "",
    "gemini-interactions:gemini-3-pro": "",
    "bedrock:anthropic.claude-haiku-4-5-v1:0": "",
    "bedrock-invoke:anthropic.claude-haiku-4-5-v1:0": "",
    "mistral:m": "/mistral",
    "cohere:m": "",
    "ollama:m": "",
}


def client_of(sim: Simulator, model: str = "openai-compatible:m", **options: Any) -> LLMClient:
    options = {"api_key": "test-key", "progress": "none", **options}
    return LLMClient(model, base_url=sim.url + APIS.get(model, "/v1"), **options)


def check_clean(response: APIResponse) -> None:
    assert response.error is None
    assert SECRET not in json.dumps(response.to_dict(), default=repr)
    assert response.completion == "The key is [key], keep it."
    assert [call.arguments for call in response.tool_calls] == [{"value": "[key]"}]


# Nothing bypasses a filter


@pytest.mark.parametrize("model", APIS)
async def test_an_answer_of_any_api_is_redacted(model: str) -> None:
    async with Simulator(SCRIPT) as sim, client_of(sim, model) as client:
        events, response = await events_of(client, filters=[KEY])
    check_clean(response)
    check_grammar(events)
    assert SECRET not in "".join(event.text for event in events if isinstance(event, TextDelta))
    if response.thinking:
        assert response.thinking == "Think of [key]."


async def test_every_way_to_take_an_answer_is_filtered(tmp_path: Path) -> None:
    async with Simulator(SCRIPT) as sim, client_of(sim) as client:
        screen = io.StringIO()
        check_clean(await client.stream("Hi", filters=[KEY], echo=screen))
        assert screen.getvalue() == "The key is [key], keep it."
        tokens = [token async for token in client.stream("Hi", filters=[KEY])]
        assert "".join(tokens) == "The key is [key], keep it."
        (response,) = await client.process_prompts_async(["Hi"], filters=[KEY])
        check_clean(response)
        journal = tmp_path / "journal"
        async for _, response in client.answers(["Hi"], filters=[KEY], journal=journal):
            check_clean(response)
        assert SECRET not in journal.read_text("utf-8")
        check_clean(await client.wait_for(client.start_nowait("Hi", filters=[KEY])))
        merged = client.stream_many(["Hi"], filters=[KEY])
        found = "".join([event.text async for _, event in merged if isinstance(event, TextDelta)])
        assert found == "The key is [key], keep it."
        check_clean(merged.responses[0])


async def test_filters_may_be_an_iterator() -> None:
    async with Simulator(SCRIPT) as sim, client_of(sim) as client:
        check_clean(await client.stream("Hi", echo=None, filters=iter([KEY])))  # type: ignore[arg-type]
        for response in await client.process_prompts_async(["Hi", "Ho"], filters=iter([KEY])):  # type: ignore[arg-type]
            check_clean(response)


def test_streams_without_asyncio_are_filtered() -> None:
    with Simulator(SCRIPT).start_in_thread() as sim:
        client = client_of(sim)  # type: ignore[arg-type]
        with client.stream_sync("Hi", filters=[KEY]) as stream:
            assert "".join(stream) == "The key is [key], keep it."
        check_clean(client.process_prompts_sync(["Hi"], filters=[KEY])[0])
        client.close_sync()


async def test_the_results_of_a_batch_of_the_provider_are_filtered(tmp_path: Path) -> None:
    async with Simulator(SCRIPT) as sim, client_of(sim, "openai-responses:gpt-5") as client:
        batch = client.provider_batch(["Hi"], journal=tmp_path / "one", filters=[KEY])
        async for _, response in batch:
            check_clean(response)
        assert SECRET not in (tmp_path / "one").read_text("utf-8")


def test_a_result_of_a_batch_may_end_early_or_fail() -> None:
    call = build_call(find_served_model("gpt-4o", None), Conversation.user("Hello"))
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    message = {"role": "assistant", "content": "The key is here."}
    body = {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    result = BatchResult(custom_id="1", body=json.dumps(body).encode())

    def answer(*filters: Filter) -> APIResponse:
        length = call.conversation.text_length()
        batched = BatchedCall(call, length, find_adapter("openai-chat"), None, compile_filters(filters))
        return build_batched_answer(batched, result, attempt=1)

    stopped, failed = answer(StopAt(" is")), answer(RaiseAt(" is"))
    assert (stopped.finish_details, stopped.error) == ({"stop": " is"}, None)
    assert isinstance(failed.error, FilterError)
    assert (failed.error.billed, failed.error.model) == ("yes", "gpt-4o")
    for response in (stopped, failed):
        assert response.completion == "The key"
        assert response.usage.output_tokens == 9
        assert response.cost > 0


# A stop


@pytest.mark.parametrize("model", APIS)
async def test_a_stop_text_ends_the_request_of_any_api(model: str) -> None:
    # The provider stays silent after the stop text, and would never close the connection.
    pieces = [TextDelta("One two E"), TextDelta("ND three"), TextDelta("four")]
    script = Script(events=[*pieces, ResponseFinished("stop")])
    faults = [Fault("silence", after=2, seconds=None)]
    async with Simulator(script, faults=faults) as sim, client_of(sim, model) as client:
        events, response = await events_of(client, filters=[StopAt("END")])
        assert (await client.stream("Hi", echo=None)).completion == "One two END threefour"
    check_grammar(events)
    assert events[-1] == ResponseFinished("stop", "stop_at", finish_details={"stop": "END"})
    assert (response.completion, response.finish_reason) == ("One two ", "stop")
    assert response.finish_details == {"stop": "END"}
    assert (response.error, response.warnings) == (None, ())
    assert response.usage.output_tokens > 0
    assert response.usage.estimated
    assert len(sim.requests) == 2
    assert sim.stats.aborted == 1


async def test_the_connection_is_closed_with_the_read_that_has_the_stop_text() -> None:
    server = Loopback([HEAD, chunk(text("One END two")), HANG])
    async with server, LLMClient("gpt-4o", base_url=server.url, api_key="k") as client:
        stream = client.stream("Hi", filters=[StopAt("END")])
        events: list[Event] = []
        while not any(isinstance(event, ResponseFinished) for event in events):
            events += await stream.next_batch()
        await server.settle()  # before anything else is read
        assert await stream.next_batch() == []
        assert stream.response.completion == "One "


async def test_a_stop_in_the_last_read_keeps_the_reported_usage() -> None:
    async with Simulator("One END.") as sim, client_of(sim) as client:
        plain = await client.stream("Hi", echo=None)
        stopped = await client.stream("Hi", echo=None, filters=[StopAt("END")])
    assert (stopped.completion, stopped.raw_finish_reason) == ("One ", "stop_at")
    assert plain.usage is not None
    assert stopped.usage is not None
    assert stopped.usage.output_tokens > 0


async def test_a_stop_cancels_an_answer_in_background_mode() -> None:
    faults = [Fault("silence", after=8, seconds=None)]
    async with (
        Simulator(" ".join(["word"] * 5 + ["END"] + ["more"] * 90), faults=faults) as sim,
        client_of(sim, "openai-responses:gpt-5", background=True) as client,
    ):
        response = await client.stream("Hi", echo=None, filters=[StopAt("END")])
    assert response.completion == "word " * 5
    assert response.finish_reason == "stop"
    assert [request.path.rpartition("/")[2] for request in sim.requests] == ["responses", "cancel"]


async def test_what_is_left_out_counts_as_generated() -> None:
    async with Simulator(Script(text="word " * 400 + "END")) as sim, client_of(sim) as client:
        response = await client.stream("Hi", echo=None, filters=[Redact("word ", "", literal=True), StopAt("END")])
    assert response.completion == ""
    assert response.usage.output_tokens > 300


# Errors and breaks


async def test_an_excluded_text_fails_the_call_once() -> None:
    async with Simulator("Made by Acme Inc.") as sim, client_of(sim, max_attempts=5) as client:
        with pytest.raises(FilterError) as caught:
            await client.stream("Hi", echo=None, filters=[RaiseAt("Acme")])
        (response,) = await client.process_prompts_async(["Hi"], filters=[RaiseAt("Acme")])
    for error in (caught.value, response.error):
        assert isinstance(error, FilterError)
        assert error.billed == "yes"
        assert "Acme" not in str(error)
    assert caught.value.partial.completion == response.completion == "Made by "
    assert len(sim.requests) == 2


async def test_text_that_is_held_when_the_stream_breaks_is_withheld() -> None:
    server = Loopback([HEAD, chunk(text("Use sk-abc")), RST])
    async with server, LLMClient("gpt-4o", base_url=server.url, api_key="k", max_attempts=1) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            await client.stream("Hi", echo=None, filters=[KEY])
    assert caught.value.partial.completion == "Use "
    assert caught.value.partial.warnings == ("withheld_text",)


async def test_a_stream_that_is_left_shows_that_text_is_held() -> None:
    server = Loopback([HEAD, chunk(text("Use sk-abc")), HANG])
    async with server, LLMClient("gpt-4o", base_url=server.url, api_key="k") as client:
        stream = client.stream("Hi", filters=[KEY])
        await stream.next_batch()
        response = await stream.cancel()
    assert (response.completion, response.warnings) == ("Use ", ("withheld_text",))


@pytest.mark.parametrize(
    ("model", "variant"), [("claude-haiku-4-5", "prefill"), ("mistral-large-latest", "echo"), ("gpt-4o", "anchor")]
)
async def test_a_continued_answer_is_filtered_over_the_break(model: str, variant: str) -> None:
    # `\b` needs the text before the break: "man" is no word in "woman".
    text = PROSE.replace("boat came", "woman came")
    for word, at in (("fields lay", 3), ("fields lay", 7), ("man", -2), ("man", 0), ("man", 1), ("sheep", 5)):
        cut = (text.index("woman") + 2 if word == "man" else text.index(word)) + at
        expected = re.sub(rf"\b{word}\b", "#", text)
        said = Model(text, variant=variant, cuts=[cut])
        url = {"gpt-4o": "/v1"}.get(model, "")
        async with Simulator(said, faults=[BREAK]) as sim:
            client = hurried(LLMClient(model, base_url=sim.url + url, api_key="k", on_break="continue"))
            events, response = await events_of(client, filters=[Redact(rf"\b{word}\b", "#")])
            await client.close()
        check_joined(events, response, expected)


async def test_an_answer_that_starts_again_is_filtered_from_its_start() -> None:
    faults = [Fault("reset", after=3)]
    async with Simulator(SCRIPT, faults=faults) as sim, client_of(sim, on_break="restart") as client:
        check_clean(await hurried(client).stream("Hi", echo=None, filters=[KEY]))
    assert len(sim.requests) == 2


async def test_a_background_answer_is_filtered_over_its_breaks() -> None:
    for after in range(4, 16):
        async with Simulator(SCRIPT, faults=[Fault("reset", after=after, in_frame=True)]) as sim:
            client = client_of(sim, "openai-responses:gpt-5", background=True)
            check_clean(await hurried(client).stream("Hi", echo=None, filters=[KEY]))
            await client.close()


# The local cache


async def test_the_cache_keeps_filtered_answers_apart(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    async with Simulator(SCRIPT) as sim, client_of(sim, local_cache=path) as client:
        check_clean(await client.stream("Hi", echo=None, filters=[KEY]))
        again = await client.stream("Hi", echo=None, filters=[KEY])
        check_clean(again)
        assert again.local_cache_hit
        assert SECRET.encode() not in path.read_bytes()
        plain = await client.stream("Hi", echo=None)
        other = await client.stream("Hi", echo=None, filters=[StopAt(" is")])
        stopped = await client.stream("Hi", echo=None, filters=[StopAt(" is")])
        assert [plain.local_cache_hit, other.local_cache_hit, stopped.local_cache_hit] == [False, False, True]
        assert (stopped.completion, stopped.finish_details) == ("The key", {"stop": " is"})
        assert SECRET in plain.completion
    assert len(sim.requests) == 3


async def test_calls_with_a_guard_bypass_the_cache(tmp_path: Path) -> None:
    seen: list[str] = []
    async with Simulator("One.") as sim, client_of(sim, local_cache=tmp_path / "cache.sqlite3") as client:
        for _ in range(2):
            response = await client.stream("Hi", echo=None, filters=[Guard(seen.append)])
            assert not response.local_cache_hit
    assert len(sim.requests) == 2
    assert seen


async def test_a_journal_is_of_one_set_of_filters(tmp_path: Path) -> None:
    async with Simulator(SCRIPT) as sim, client_of(sim) as client:
        await client.process_prompts_async(["Hi"], journal=tmp_path / "j", filters=[KEY])
        await client.process_prompts_async(["Hi"], journal=tmp_path / "j", filters=[KEY])
        assert len(sim.requests) == 1
        with pytest.raises(JournalError, match="belongs to another batch"):
            await client.process_prompts_async(["Hi"], journal=tmp_path / "j")


# Guards and tags


async def test_a_guard_ends_the_stream_and_its_request() -> None:
    faults = [Fault("silence", after=4, seconds=None)]
    script = Script(events=[*map(TextDelta, ("one ", "two ", "three ", "four ", "five ")), ResponseFinished("stop")])
    guard = Guard(lambda text: "three" not in text)
    async with Simulator(script, faults=faults) as sim, client_of(sim) as client:
        response = await client.stream("Hi", echo=None, filters=[guard])
    assert (response.finish_reason, response.raw_finish_reason) == ("content_filter", "guard")
    assert "three" not in response.completion
    assert response.error is None
    assert sim.stats.aborted == 1


@pytest.mark.parametrize("method", ["stream", "process_prompts_async"])
async def test_a_guard_that_fails_fails_its_call_alone(method: str) -> None:
    def check(text: str) -> bool:
        raise RuntimeError(text)

    async with Simulator("One.") as sim, client_of(sim) as client:
        if method == "stream":
            with pytest.raises(FilterError, match="raised RuntimeError") as caught:
                await client.stream("Hi", echo=None, filters=[Guard(check)])
            assert isinstance(caught.value.__cause__, RuntimeError)
        else:
            responses = await client.process_prompts_async(["Hi", "Ho"], filters=[Guard(check)])
            assert [type(response.error) for response in responses] == [FilterError, FilterError]
        assert (await client.stream("Hi", echo=None)).completion == "One."


async def test_tags_of_any_model_are_reasoning() -> None:
    async with Simulator("<scratch>Two and two.</scratch>Four.") as sim, client_of(sim, "anthropic:m") as client:
        response = await client.stream("Hi", echo=None, filters=[ReasoningTags("<scratch>", "</scratch>")])
    assert (response.thinking, response.completion) == ("Two and two.", "Four.")


async def test_the_stop_texts_of_the_provider_are_its_own() -> None:
    async with Simulator("One.") as sim, client_of(sim) as client:
        params = SamplingParams(stop=("A",))
        await client.stream("Hi", echo=None, filters=[StopAt("B")], sampling_params=params)
    assert sim.requests[0].json["stop"] in ("A", ["A"])


@pytest.mark.parametrize("filters", ["END", [print], StopAt("a")])
async def test_what_is_no_filter_is_refused_before_anything_is_sent(filters: Any) -> None:
    async with Simulator("One.") as sim, client_of(sim) as client:
        for call in (client.stream, client.stream_sync, client.start_nowait):
            with pytest.raises(ConfigurationError, match="filter"):
                call("Hi", filters=filters)
        for batch in (client.answers, client.stream_many):
            with pytest.raises(ConfigurationError, match="filter"):
                batch(["Hi"], filters=filters)
    assert sim.requests == []
