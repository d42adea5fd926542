"""`on_break="continue"` through real sockets: a stream that dies in the middle is one whole answer all the same."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from client.continued import PLAIN_TEXTS, PROSE, TEXTS, anchor_in, breaks
from client.continued_streams import BREAK, Model, check_joined, client_of, events_of, hurried, read_all, read_on
from grammar import check_grammar
from lm_deluge import Tool
from lm_deluge.config import Timeouts
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, StreamInterruptedError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.faults.catalog import Fault

TIMES = 1_000 if os.environ.get("DELUGE_SOAK") else 100
WAYS = [
    ("claude-haiku-4-5", "prefill", TEXTS),
    ("mistral-large-latest", "echo", TEXTS),
    ("gpt-4o", "anchor", PLAIN_TEXTS),
    ("gpt-4o", "start", PLAIN_TEXTS),
    ("openai-responses:gpt-4o", "more", {"prose": PROSE}),
    ("gemini-2.5-flash", "less", {"prose": PROSE}),
]


@pytest.mark.parametrize(("model", "variant", "texts"), WAYS, ids=[f"{model}-{variant}" for model, variant, _ in WAYS])
async def test_broken_answers_are_whole(model: str, variant: str, texts: dict[str, str]) -> None:
    """A hundred times, a thousand in a soak: behind the first character, before the last, within an emoji."""
    rng = random.Random(f"{model} {variant}")
    for number in range(TIMES):
        text = rng.choice(list(texts.values()))
        at = rng.choice((1, len(text) - 1, *rng.choices(breaks(text), k=12)))
        said = Model(text, variant=variant, cuts=[at], seed=f"{model} {variant} {number}")
        faults = [Fault("cut_chunk", after=1, in_frame=rng.random() < 0.5)]
        async with Simulator(said, faults=faults) as sim, hurried(client_of(sim, model)) as client:
            events, response = await events_of(client)
        check_joined(events, response, text)
        assert response.content.parts[0].text == text
        assert len(response.content.parts) == 1
        assert len(sim.requests) == 2
        paid = said.usages[0] + said.usages[1]
        if variant != "echo":  # which is asked like OpenAI, and then reports nothing unless it is told to
            assert response.usage.output_tokens >= said.usages[1].output_tokens
        if model.startswith("claude"):  # which reports from the beginning on
            assert (response.usage.input_tokens, response.usage.output_tokens) == (
                paid.input_tokens,
                paid.output_tokens,
            )
            assert not response.usage.estimated


async def test_an_answer_may_break_again_and_again() -> None:
    said = Model(PROSE, cuts=[100, 90, 130])
    faults = [BREAK, BREAK, Fault("clean_truncation", after=1)]
    async with Simulator(said, faults=faults) as sim, hurried(client_of(sim)) as client:
        events, response = await events_of(client)
    check_joined(events, response, PROSE)
    notes = [event for event in events if isinstance(event, Attempt)]
    assert [(note.number, note.error) for note in notes] == [
        (2, "StreamInterruptedError"),
        (3, "StreamInterruptedError"),
        (4, "TruncatedError"),
    ]
    # Each time from where it had come, with all that was shown.
    told = [request.json["messages"] for request in sim.requests]
    assert [len(messages) for messages in told] == [1, 3, 3, 3]
    shown = [messages[1]["content"] for messages in told[1:]]
    assert all(PROSE.startswith(text) for text in shown)
    assert len(shown[0]) < len(shown[1]) < len(shown[2])


async def test_attempts_are_bounded_and_what_was_shown_is_kept() -> None:
    said = Model(PROSE, cuts=[100, 90, 130])
    async with Simulator(said, faults=[BREAK] * 9) as sim, hurried(client_of(sim, max_attempts=3)) as client:
        stream = client.stream("Tell me.", echo=None)
        with pytest.raises(StreamInterruptedError) as caught:
            await stream
    assert len(sim.requests) == caught.value.attempts == 3
    assert len(caught.value.partial.completion) > 100
    assert PROSE.startswith(caught.value.partial.completion)
    assert stream.response.completion == caught.value.partial.completion


@pytest.mark.parametrize(
    "says",
    [
        lambda anchor: "And so on, and so forth; nobody knows how it ended.",  # noqa: ARG005
        lambda anchor: "",  # noqa: ARG005
        lambda anchor: Script(refusal="No more of that."),  # noqa: ARG005
        lambda anchor: Script(events=[ResponseStarted("a"), ResponseFinished("content_filter")]),  # noqa: ARG005
        lambda anchor: Script(tool_calls=[("count", {"what": "sheep"})]),  # noqa: ARG005
        lambda anchor: Script(text=anchor[:-1], finish_reason="length"),
    ],
    ids=["other words", "nothing", "a refusal", "a filter", "a call in mid-sentence", "less than a repeat"],
)
async def test_a_rest_that_does_not_fit_is_not_joined(says: Callable[[str], str | Script]) -> None:
    """The break is raised, with the reason, and not a word is doubled or lost."""

    def said(request: ParsedRequest) -> str | Script:
        anchor = anchor_in(request.conversation[-1].completion)
        return PROSE if anchor is None else says(anchor)

    fault = Fault("cut_chunk", after=20)
    async with Simulator(said, faults=[fault]) as sim, hurried(client_of(sim)) as client:
        events: list[Event] = []
        stream = client.stream("Tell me.", tools=[Tool(name="count")])
        with pytest.raises(StreamInterruptedError, match="It could not be continued: the ") as caught:
            await read_all(stream, events)
        assert client.dispatcher.limiter().limiter._concurrency.used == 0
    check_grammar(events, is_complete=False)
    shown = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert PROSE.startswith(shown)
    assert caught.value.partial.completion == stream.response.completion == shown
    assert caught.value.attempts == 2
    assert caught.value.partial.usage.output_tokens > 0


OBSTACLES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "schema": ("is structured output", {}, {"output": {"type": "object", "properties": {"a": {"type": "string"}}}}),
    "json mode": ("is structured output", {"json_mode": True}, {}),
    "extra body": ("is structured output", {"extra_body": {"response_format": {"type": "json_object"}}}, {}),
    "logprobs": ("log probabilities", {"logprobs": True}, {}),
}


@pytest.mark.parametrize("name", OBSTACLES)
async def test_what_a_join_could_spoil_is_not_continued(name: str) -> None:
    reason, options, asked = OBSTACLES[name]
    async with (
        Simulator(PROSE, faults=[Fault("cut_chunk", after=20)]) as sim,
        hurried(client_of(sim, **options)) as client,
    ):
        with pytest.raises(StreamInterruptedError, match=f"could not be continued: .*{reason}") as caught:
            await client.stream("Tell me.", echo=None, **asked)
        assert PROSE.startswith(caught.value.partial.completion)
        assert len(sim.requests) == 1


@pytest.mark.parametrize(
    ("script", "after", "reason"),
    [
        (Script(text="I look it up.", tool_calls=[("count", {"what": "sheep"})]), 7, "calls a tool"),
        (Script(refusal="I cannot help you with that, sorry."), 3, "refused"),
    ],
)
async def test_calls_and_refusals_are_not_continued(script: Script, after: int, reason: str) -> None:
    async with Simulator(script, faults=[Fault("cut_chunk", after=after)]) as sim, client_of(sim) as client:
        with pytest.raises(StreamInterruptedError, match=reason):
            await client.stream("Tell me.", echo=None, tools=[Tool(name="count")])
        assert len(sim.requests) == 1


SOURCE = Citation(url="https://example.org", title="Sheep", start=4, end=9)


async def test_sources_are_not_continued() -> None:
    said = [ResponseStarted("a"), TextDelta("It says so"), SOURCE, TextDelta(" and"), TextDelta(" so.")]
    script = Script(events=[*said, ResponseFinished("stop")])
    faults = [Fault("cut_chunk", after=2)]
    async with Simulator(script, faults=faults) as sim, client_of(sim, "openai-responses:gpt-4o") as client:
        with pytest.raises(StreamInterruptedError, match="it has citations") as caught:
            await client.stream("Tell me.", echo=None)
        assert len(sim.requests) == 1
    assert [each.url for each in caught.value.partial.citations] == ["https://example.org"]


async def test_sources_of_the_rest_count_in_the_whole_text() -> None:
    text = "There were forty-one of them, and two were missing, as the list shows."

    def said(request: ParsedRequest) -> Script:
        anchor = anchor_in(request.conversation[-1].completion)
        if anchor is None:
            return Script(text=text)
        rest = text[text.index(anchor) :]
        at = rest.index("list")
        return Script(text=rest, extra=[Citation(url="https://example.org", title="Sheep", start=at, end=at + 4)])

    faults = [Fault("cut_chunk", after=6)]
    async with Simulator(said, faults=faults) as sim, hurried(client_of(sim, "openai-responses:gpt-4o")) as client:
        events, response = await events_of(client)
    check_joined(events, response, text)
    (found,) = response.citations
    assert text[found.start : found.end] == "list"


async def test_sources_before_the_seam_are_no_rest() -> None:
    def said(request: ParsedRequest) -> str | Script:
        if anchor_in(request.conversation[-1].completion) is None:
            return PROSE
        return Script(events=[ResponseStarted("a"), TextDelta(PROSE[:9]), SOURCE, ResponseFinished("stop")])

    faults = [Fault("cut_chunk", after=20)]
    async with Simulator(said, faults=faults) as sim, hurried(client_of(sim, "openai-responses:gpt-4o")) as client:
        with pytest.raises(StreamInterruptedError, match="has citations before its text"):
            await client.stream("Tell me.", echo=None)


OBJECT = json.dumps({"prose": PROSE})


async def test_where_only_thoughts_were_shown_it_begins_anew() -> None:
    script = Script(reasoning="Let me think about it for a while.", text=OBJECT)
    async with Simulator(script, faults=[Fault("cut_chunk", after=4)]) as sim, hurried(client_of(sim)) as client:
        events, response = await events_of(client, output={"type": "object"})  # so even where it could not go on
    check_grammar(events)
    notes = [event for event in events if isinstance(event, Attempt)]
    assert [note.goes_on for note in notes] == [False]
    assert response.completion == OBJECT
    assert response.output == {"prose": PROSE}
    assert response.thinking == script.reasoning
    assert [len(request.json["messages"]) for request in sim.requests] == [1, 1]


async def test_thoughts_before_the_rest_are_passed_on() -> None:
    model = Model(PROSE, cuts=[100])

    def said(request: ParsedRequest) -> Script:
        thought = "Where was I?" if len(request.conversation) > 1 else ""
        return Script(reasoning=thought, text=_text(model(request)))

    async with Simulator(said, faults=[Fault("cut_chunk", after=30)]) as sim, hurried(client_of(sim)) as client:
        events, response = await events_of(client)
    check_joined(events, response, PROSE)
    assert response.thinking == "Where was I?"


def _text(script: Script) -> str:
    return "".join(event.text for event in script.events if isinstance(event, TextDelta))


async def test_prefill_is_not_for_who_thinks() -> None:
    """Claude takes no words in its mouth while it is to think; then it is told to go on."""
    said = Model(PROSE, cuts=[100])
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim, "claude-haiku-4-5")) as client:
        events, response = await events_of(client, sampling_params=None)
        assert sim.requests[1].json["messages"][-1]["role"] == "assistant"
    check_joined(events, response, PROSE)
    said = Model(PROSE, cuts=[100])
    options = {"reasoning_effort": "low", "max_new_tokens": 4_000}
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim, "claude-haiku-4-5", **options)) as client:
        events, response = await events_of(client)
        assert [message["role"] for message in sim.requests[1].json["messages"]] == ["user", "assistant", "user"]
    check_joined(events, response, PROSE)


async def test_words_that_the_conversation_begins_are_continued_with() -> None:
    given = "Once upon a time, "
    said = Model(given + PROSE, cuts=[0])

    prompt = Conversation.user("Tell me.").assistant(given)
    faults = [Fault("cut_chunk", after=20)]
    async with Simulator(said, faults=faults) as sim, hurried(client_of(sim, "claude-haiku-4-5")) as client:
        events, response = await events_of(client, prompt)
        assert [len(request.json["messages"]) for request in sim.requests] == [2, 2]
        assert sim.requests[1].json["messages"][1]["content"].startswith(given + PROSE[:20])
    # The blank behind the given words was left out, so the answer begins with it.
    check_joined(events, response, " " + PROSE)


async def test_the_limit_of_tokens_is_that_of_the_whole() -> None:
    said = Model(PROSE, cuts=[400])
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim, max_new_tokens=300)) as client:
        await events_of(client)
        first, second = (request.json["max_completion_tokens"] for request in sim.requests)
    assert first == 300
    assert 200 <= second <= 230  # a hundred are gone, and some are for the repeat


async def test_a_call_behind_the_rest_is_passed_on() -> None:
    text = "I count them first. Then we will see how many of them there are."

    def said(request: ParsedRequest) -> Script:
        anchor = anchor_in(request.conversation[-1].completion)
        if anchor is None:
            return Script(text=text)
        return Script(text=anchor + text[text.index(anchor) + len(anchor) :], tool_calls=[("count", {"what": "sheep"})])

    async with Simulator(said, faults=[Fault("cut_chunk", after=6)]) as sim, hurried(client_of(sim)) as client:
        events, response = await events_of(client, tools=[Tool(name="count")])
    check_joined(events, response, text)
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("count", {"what": "sheep"})]
    assert response.finish_reason == "tool_calls"


async def test_a_call_at_once_is_passed_on_where_the_text_was_whole() -> None:
    def said(request: ParsedRequest) -> Script:
        is_first = anchor_in(request.conversation[-1].completion) is None
        return Script(text="I count them." if is_first else None, tool_calls=[("count", {})])

    async with Simulator(said, faults=[Fault("cut_chunk", after=3)]) as sim, hurried(client_of(sim)) as client:
        events, response = await events_of(client, tools=[Tool(name="count")])
    check_joined(events, response, "I count them.")
    assert [call.name for call in response.tool_calls] == ["count"]


async def test_a_model_that_cannot_be_reached_is_stood_in_for() -> None:
    """The other one was not there when the answer began: it is told to go on, even if it took words of its own."""
    said = Model(PROSE, cuts=[100])
    models = ["claude-haiku-4-5", "claude-opus-4-1"]
    faults = [BREAK, Fault("status", status=503)]
    async with Simulator(said, faults=faults) as sim, client_of(sim, models) as client:
        # Who is not there is left alone for a while, which the stream itself does not wait for.
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0 if len(sim.requests) < 2 else 1.0))
        events, response = await events_of(client, prefer_model=models[0])
    check_joined(events, response, PROSE)
    assert [request.json["model"] for request in sim.requests] == [models[0], models[0], models[1]]
    assert [request.json["messages"][-1]["role"] for request in sim.requests] == ["user", "assistant", "user"]
    assert [event.model for event in events if isinstance(event, Attempt)] == models
    assert response.model_internal == models[1]


async def test_the_model_that_broke_is_asked_first() -> None:
    said = Model(PROSE, cuts=[100])
    models = ["gpt-4o", "gpt-4o-mini"]
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim, models)) as client:
        events, response = await events_of(client, prefer_model="gpt-4o")
    check_joined(events, response, PROSE)
    assert [request.json["model"] for request in sim.requests] == ["gpt-4o", "gpt-4o"]


async def test_a_refused_request_for_the_rest_is_the_reason() -> None:
    faults = [Fault("cut_chunk", after=20), Fault("status", status=400, message="no assistant messages here")]
    async with Simulator(PROSE, faults=faults) as sim, hurried(client_of(sim)) as client:
        with pytest.raises(StreamInterruptedError, match="not be continued: no assistant messages") as caught:
            await client.stream("Tell me.", echo=None)
    assert isinstance(caught.value.__cause__, BadRequestError)
    assert PROSE.startswith(caught.value.partial.completion)
    assert caught.value.attempts == 2


async def test_a_model_that_takes_no_words_after_all_is_told_to_go_on() -> None:
    said = Model(PROSE, cuts=[100])
    faults = [BREAK, Fault("status", status=400, message="This model does not support assistant message prefill.")]
    async with Simulator(said, faults=faults) as sim, hurried(client_of(sim, "claude-haiku-4-5")) as client:
        events, response = await events_of(client)
        told = [[message["role"] for message in request.json["messages"]] for request in sim.requests]
    check_joined(events, response, PROSE)
    assert told == [["user"], ["user", "assistant"], ["user", "assistant", "user"]]


async def test_a_silence_is_a_break() -> None:
    said = Model(PROSE, cuts=[100])
    clocks = Timeouts(idle=0.2)
    async with (
        Simulator(said, faults=[Fault("silence", after=1)]) as sim,
        hurried(client_of(sim, timeouts=clocks)) as client,
    ):
        events, response = await events_of(client)
    check_joined(events, response, PROSE)
    assert [event.error for event in events if isinstance(event, Attempt)] == ["TimeoutError"]


async def test_an_error_within_the_stream_is_a_break() -> None:
    said = Model(PROSE, cuts=[100])
    faults = [Fault("in_band_error_mid", after=1)]
    async with Simulator(said, faults=faults) as sim, hurried(client_of(sim)) as client:
        events, response = await events_of(client)
    check_joined(events, response, PROSE)


async def test_batches_are_continued_and_where_they_cannot_be_begin_anew() -> None:
    said = Model(PROSE, cuts=[100])
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim)) as client:
        (response,) = await client.process_prompts_async(["Tell me."])
        assert response.completion == PROSE
        assert len(sim.requests[1].json["messages"]) == 3
    for says in ("Something else entirely, and more of it than anybody asked for.", None):
        schema = None if says else {"type": "object"}
        whole = PROSE if says else OBJECT

        def script(request: ParsedRequest, says: str | None = says, whole: str = whole) -> str:
            return whole if len(request.conversation) == 1 or says is None else says

        async with Simulator(script, faults=[Fault("cut_chunk", after=20)]) as sim, hurried(client_of(sim)) as client:
            (response,) = await client.process_prompts_async(["Tell me."], output=schema)
            assert response.completion == whole
            assert response.error is None
            assert [len(request.json["messages"]) for request in sim.requests] == ([1, 3, 1] if says else [1, 1])


async def test_merged_streams_are_continued() -> None:
    said = Model(PROSE, cuts=[100])
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim)) as client:
        events = [event async for _, event in client.stream_many(["Tell me."])]
    check_grammar(events)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == PROSE


async def test_a_joined_answer_is_not_put_into_the_cache(tmp_path: Any) -> None:
    said = Model(PROSE, cuts=[100])
    path = str(tmp_path / "answers.db")
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim, local_cache=path)) as client:
        assert (await client.stream("Tell me.", echo=None)).completion == PROSE
        again = await client.stream("Tell me.", echo=None)
        assert again.completion == PROSE
        assert not again.local_cache_hit
        assert (await client.stream("Tell me.", echo=None)).local_cache_hit
        assert len(sim.requests) == 3


async def test_an_answer_that_is_not_kept_any_more_is_asked_for() -> None:
    """Background mode comes first; where the provider has lost the answer, the model is told to go on."""
    options = {"model": "openai-responses:gpt-5", "background": True}
    said = Model(PROSE, cuts=[100])
    events: list[Event] = []
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim, **options)) as client:
        stream = client.stream("Tell me.", echo=None)
        while not any(isinstance(event, TextDelta) for event in events):
            events += await stream.next_batch()
        sim._router._answers._background._answers.clear()
        with pytest.warns(RuntimeWarning, match="could not be cancelled"):
            await read_on(stream, events)
        check_joined(events, stream.response, PROSE, in_silence=1)  # the one that found nothing to take up
        assert [request.method for request in sim.requests][:2] == ["POST", "GET"]


@pytest.mark.parametrize("on_break", ["restart", "continue"])
async def test_a_stream_that_is_left_asks_for_nothing_more(on_break: str) -> None:
    faults = [Fault("silence", after=20)]
    async with Simulator(PROSE, faults=faults) as sim, hurried(client_of(sim, on_break=on_break)) as client:
        stream = client.stream("Tell me.", echo=None)
        shown = ""
        while len(shown) < 60:
            shown += "".join(getattr(event, "text", "") for event in await stream.next_batch())
        reader = asyncio.create_task(stream.next_batch())
        await asyncio.sleep(0)
        response = await stream.cancel()
        assert await reader == []
        await asyncio.sleep(0.02)
        assert len(sim.requests) == 1
        assert PROSE.startswith(response.completion)


async def test_a_continuation_that_is_held_back_can_be_left() -> None:
    """It repeats a part of what was shown and then says nothing more."""
    said = Model(PROSE, cuts=[100, 10])
    faults = [BREAK, Fault("silence", after=1)]
    async with Simulator(said, faults=faults) as sim, hurried(client_of(sim)) as client:
        stream = client.stream("Tell me.", echo=None)
        events: list[Event] = []
        while not any(isinstance(event, Attempt) for event in events):
            events += await stream.next_batch()
        reader = asyncio.create_task(stream.next_batch())
        await asyncio.sleep(0.02)
        assert not reader.done()
        response = await stream.cancel()
        assert await reader == []
        assert response.completion == PROSE[:100]
        assert client.dispatcher.limiter().limiter._concurrency.used == 0


async def test_stats_are_of_the_whole() -> None:
    said = Model(PROSE, cuts=[100])
    async with Simulator(said, faults=[BREAK]) as sim, hurried(client_of(sim, "claude-haiku-4-5")) as client:
        _, response = await events_of(client)
    stats = response.stats
    assert stats.attempts == 2
    assert stats.output_tokens == response.usage.output_tokens
    assert stats.bytes_received > len(PROSE)
    assert stats.time_to_first_token < stats.duration
    assert stats.gap_max <= stats.duration
    price = client.models[0].price
    assert response.cost == pytest.approx(sum(price.cost(usage) for usage in said.usages))
