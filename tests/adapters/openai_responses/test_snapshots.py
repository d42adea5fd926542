"""Deltas, `done` events, finished items and the last event are one response: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cuts
import recordings
from grammar import check_grammar
from lm_deluge import LLMClient, Timeouts, errors
from lm_deluge.events import Event, TextDelta, ToolCallDelta, ToolCallFinished, ToolCallStarted
from lm_deluge.prompt.parts import ImagePart, ProviderDataPart
from lm_deluge.response import APIResponse
from lm_deluge.testing import decode_body, decode_events
from loopback import END, HANG, HEAD, RST, Loopback, Step, chunk
from samples.responses_bytes import (
    API,
    JSON,
    added,
    completed,
    created,
    done,
    events_of,
    frame,
    message,
    piece,
    text,
    whole,
)

DIFFERS = ("snapshot_differs",)
ROME = '{"city": "Roma"}'


def call(number: int = 1, arguments: Any = ROME, **fields: Any) -> JSON:
    item = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": "weather"}
    return {**item, "arguments": arguments, **fields}


def reasoning(*summary: str, **fields: Any) -> JSON:
    parts = [{"type": "summary_text", "text": each} for each in summary]
    return {"type": "reasoning", "id": "rs_1", "summary": parts, **fields}


def arguments(delta: str, index: int = 0, **fields: Any) -> bytes:
    return frame("function_call_arguments.delta", output_index=index, delta=delta, **fields)


def read(*frames: bytes) -> APIResponse:
    """Return the response, after a check that it does not depend on how the bytes are cut."""
    body = b"".join(frames)
    events = list(decode_events(API, body))
    check_grammar(events)
    assert list(decode_events(API, cuts.every(body, 1))) == events
    return decode_body(API, body)


def calls_of(response: APIResponse) -> list[tuple[str, str, str]]:
    return [(each.id, each.name, each.arguments_text) for each in response.tool_calls]


# Texts.


@pytest.mark.parametrize(
    ("streamed", "final", "expected", "warnings"),
    [
        ("Hello", "Hello", "Hello", ()),
        ("Hel", "Hello", "Hello", ()),
        ("", "Hello", "Hello", ()),
        ("Hello", "", "Hello", ()),
        ("Hello", "Help", "Hello", DIFFERS),
        ("Hello", "Hell", "Hello", DIFFERS),
        ("Hello", "Other and longer", "Hello", DIFFERS),
    ],
)
@pytest.mark.parametrize("stage", ["text", "part", "item", "last"])
def test_a_text_is_reconciled_by_prefix(
    stage: str, streamed: str, final: str, expected: str, warnings: tuple[str, ...]
) -> None:
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    snapshot = {
        "text": frame("output_text.done", **place, text=final),
        "part": frame("content_part.done", **place, part=piece(final)),
        "item": done(message(piece(final))),
        "last": b"",
    }[stage]
    last = completed(message(piece(final))) if stage == "last" else completed()
    start = added(message(content=[]))
    response = read(created(), start, text(streamed, item_id="msg_1"), snapshot, last)
    assert (response.completion, response.warnings) == (expected, warnings)


@pytest.mark.parametrize("final", [0, 1, 2])
@pytest.mark.parametrize("streamed", [0, 1, 5])
def test_the_index_of_a_part_may_change(streamed: int, final: int) -> None:
    place = {"output_index": 0, "content_index": streamed}
    finished = message(*[{"type": "refusal", "refusal": ""}] * final, piece("One two"))
    frames = [text("One ", content=streamed), frame("output_text.done", **place, text="One two"), done(finished)]
    response = read(created(), *frames, completed(finished))
    assert (response.completion, response.warnings) == ("One two", ())


def test_a_done_event_with_another_index_than_its_deltas() -> None:
    ends = [
        frame("output_text.done", output_index=0, content_index=0, text="One two"),
        frame("content_part.done", output_index=0, content_index=0, part=piece("One two")),
    ]
    assert read(created(), text("One ", content=1), *ends, completed()).completion == "One two"


def test_two_parts_with_the_same_text_are_two() -> None:
    ends = [frame("output_text.done", output_index=0, content_index=index, text="Yes.") for index in (0, 1)]
    finished = message(piece("Yes."), piece("Yes."))
    assert read(created(), text("Yes."), *ends, done(finished), completed(finished)).completion == "Yes.Yes."


def test_a_part_that_only_the_finished_item_has() -> None:
    finished = message(piece("One "), piece("two"))
    response = read(created(), text("two", content=1), done(finished), completed(finished))
    assert sorted(response.completion) == sorted("One two")
    assert read(created(), text("One "), done(finished), completed(finished)).completion == "One two"


def test_a_part_of_a_done_event_that_belongs_to_no_delta_is_kept() -> None:
    other = frame("output_text.done", output_index=0, content_index=1, text="two")
    assert read(created(), text("One "), other, completed()).completion == "One two"


def test_a_text_that_is_done_too_early_goes_on() -> None:
    """Seen from OmniRoute, 2026: the `done` events follow the first delta."""
    early = frame("output_text.done", output_index=0, content_index=0, text="Hel")
    response = read(created(), text("Hel"), early, done(message(piece("Hel"))), text("lo"), completed())
    assert (response.completion, response.warnings) == ("Hello", ())


def test_a_refusal_is_reconciled_by_prefix() -> None:
    def refused(words: str) -> JSON:
        return message({"type": "refusal", "refusal": words})

    delta = frame("refusal.delta", output_index=0, content_index=3, delta="I can")
    response = read(created(), delta, done(refused("I cannot.")), completed(refused("I cannot.")))
    assert (response.content.parts[0].text, response.finish_reason) == ("I cannot.", "refusal")
    end = frame("refusal.done", output_index=0, content_index=3, refusal="Never.")
    response = read(created(), delta, end, completed(refused("Never.")))
    assert (response.content.parts[0].text, response.warnings) == ("I can", DIFFERS)


# Items.


def test_a_second_message_that_only_the_last_event_has() -> None:
    first, second = message(piece("One. ")), message(piece("Two."), id="msg_2")
    assert read(created(), text("One. "), done(first), completed(first, second)).completion == "One. Two."
    assert read(created(), text("One. ", item_id="msg_1"), completed(first, second)).completion == "One. Two."


@pytest.mark.parametrize("has_ids", [True, False])
def test_an_item_may_move_to_another_index(has_ids: bool) -> None:
    """Seen from OpenRouter, 2025-11: the last event omits items, and ids change."""
    final = message(piece("Hello"), id="msg_1" if has_ids else "other")
    thought = frame("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm.")
    response = read(created(), thought, text("Hel", item=1, item_id="msg_1"), completed(final))
    assert (response.thinking, response.completion, response.warnings) == ("Hm.", "Hello", ())


def test_items_that_share_an_index_are_told_apart_by_their_ids() -> None:
    one, two = message(piece("One. ")), message(piece("Two."), id="msg_2")
    frames = [
        added({**one, "content": []}), added({**two, "content": []}),
        text("One", item_id="msg_1"), text("Two", item_id="msg_2"), done(one), done(two),
    ]  # fmt: skip
    response = read(created(), *frames, completed(one, two))
    assert sorted(response.completion) == sorted("One. Two.")


def test_ids_that_change_with_every_event() -> None:
    """Seen from GitHub Copilot, 2026-02."""
    ids = iter(range(100))
    parts = [reasoning("Hm."), message(piece("Hello")), call()]
    items = [lambda item=item: {**item, "id": f"x{next(ids)}"} for item in parts]
    body = [
        created(),
        added({**items[0](), "summary": []}),
        frame("reasoning_summary_text.delta", output_index=0, summary_index=0, item_id=f"x{next(ids)}", delta="H"),
        done(items[0]()),
        added({**items[1](), "content": []}, 1),
        text("Hel", item=1, item_id=f"x{next(ids)}"),
        text("l", item=1, item_id=f"x{next(ids)}"),
        done(items[1](), 1),
        added({**items[2](), "arguments": ""}, 2),
        arguments('{"city"', 2, item_id=f"x{next(ids)}"),
        done(items[2](), 2),
        completed(*(item() for item in items)),
    ]
    response = read(*body)
    assert (response.thinking, response.completion, response.warnings) == ("Hm.", "Hello", ())
    assert calls_of(response) == [("call_1", "weather", ROME)]
    assert sum(isinstance(part, ProviderDataPart) for part in response.content.parts) == 1


@pytest.mark.parametrize("ends", [b"", done(reasoning("First."))])
def test_reasoning_is_reconciled_and_keeps_what_only_the_last_event_has(ends: bytes) -> None:
    delta = frame("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="First")
    item = reasoning("First.", "Then.", encrypted_content="gAAA")
    response = read(created(), delta, ends, text("Hi", item=1), completed(item, message(piece("Hi"))))
    assert response.thinking == "First.Then."
    (opaque,) = [part for part in response.content.parts if isinstance(part, ProviderDataPart)]
    assert opaque.data["encrypted_content"] == "gAAA"


def test_reasoning_that_comes_as_summary_and_as_content_is_one() -> None:
    item = reasoning("Hm.", content=[{"type": "reasoning_text", "text": "Hm."}])
    delta = frame("reasoning_text.delta", output_index=0, content_index=0, delta="Hm.")
    assert read(created(), delta, done(item), completed(item)).thinking == "Hm."
    assert read(created(), completed(item)).thinking == "Hm."


def test_the_data_of_a_tool_of_the_provider_grow() -> None:
    before = {"type": "code_interpreter_call", "id": "ci", "code": "x", "outputs": None, "status": "in_progress"}
    after = {**before, "outputs": [{"type": "logs", "logs": "1"}], "code": "x = 1", "status": "completed"}
    response = read(created(), done(before), text("Hi", item=1), completed(after, message(piece("Hi"))))
    (opaque,) = [part.data for part in response.content.parts if isinstance(part, ProviderDataPart)]
    assert opaque == {**after, "status": "in_progress"}
    assert type(response.content.parts[0]) is ProviderDataPart


def test_two_searches_at_one_index_are_two() -> None:
    one, two = ({"type": "web_search_call", "id": each, "action": {"query": "q"}} for each in ("ws_1", "ws_2"))
    for frames in (
        [done(one), done(two), completed()],
        [done(one), done(two), completed(one, two)],
        [done(one), completed(one, two)],
    ):
        response = read(created(), *frames)
        assert [part.data["id"] for part in response.content.parts] == ["ws_1", "ws_2"]


def test_an_image_that_only_the_last_event_has() -> None:
    empty = {"type": "image_generation_call", "id": "ig_1", "output_format": "webp", "result": None}
    full = {**empty, "result": "UklG"}
    response = read(created(), done(empty), completed(full))
    assert [type(part) for part in response.content.parts].count(ImagePart) == 1
    assert [part.data for part in response.content.parts if isinstance(part, ProviderDataPart)] == [full]


def test_citations_come_once_though_their_index_changes() -> None:
    link = {"type": "url_citation", "url": "https://example.org", "title": "T", "start_index": 1, "end_index": 3}
    other = {**link, "start_index": 0}
    cited = frame("output_text.annotation.added", output_index=0, content_index=4, annotation=link)
    finished = message(piece("Hello", annotations=[link, other]))
    response = read(created(), text("Hello", content=4), cited, done(message(piece("Hello"))), completed(finished))
    assert [(each.start, each.end) for each in response.citations] == [(1, 3), (0, 3)]


def test_citations_of_the_second_part_count_from_its_start() -> None:
    link = {"type": "url_citation", "url": "https://example.org", "start_index": 0, "end_index": 3}
    finished = message(piece("One "), piece("two", annotations=[link]))
    response = read(created(), text("One ", content=1), text("two", content=2), done(finished), completed(finished))
    assert [(each.start, each.end) for each in response.citations] == [(4, 7)]


# Calls.


@pytest.mark.parametrize(
    ("streamed", "final", "expected", "warnings"),
    [
        (ROME, ROME, ROME, ()),
        ('{"city": "Ro', ROME, ROME, ()),
        ("", ROME, ROME, ()),
        (ROME, "", ROME, ()),
        (ROME, '{"city":"Roma"}', ROME, ()),
        (ROME, {"city": "Roma"}, ROME, ()),
        ("", {"city": "Roma"}, '{"city":"Roma"}', ()),
        (ROME, '{"city": "Oslo"}', ROME, DIFFERS),
        ('{"city": "Ro', '{"city": "Oslo"}', '{"city": "Ro', DIFFERS),
    ],
)
@pytest.mark.parametrize("stage", ["arguments", "item", "last"])
def test_arguments_are_reconciled_by_prefix(
    stage: str, streamed: str, final: Any, expected: str, warnings: tuple[str, ...]
) -> None:
    snapshot = {
        "arguments": frame("function_call_arguments.done", output_index=0, arguments=final),
        "item": done(call(arguments=final)),
        "last": b"",
    }[stage]
    last = completed(call(arguments=final)) if stage == "last" else completed()
    response = read(created(), added(call(arguments="")), arguments(streamed), snapshot, last)
    assert calls_of(response) == [("call_1", "weather", expected)]
    assert (response.warnings, response.finish_reason) == (warnings, "tool_calls")


def test_arguments_that_the_finished_item_cuts_are_completed_by_the_last_event() -> None:
    cut = call(arguments='{"city": "Ro')
    assert calls_of(read(created(), added(call(arguments="")), done(cut), completed(call()))) == [
        ("call_1", "weather", ROME)
    ]
    assert calls_of(read(created(), done(call(arguments="")), completed(call()))) == [("call_1", "weather", ROME)]


def test_the_input_of_a_custom_tool() -> None:
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "sql", "input": "SELECT 1"}
    delta = frame("custom_tool_call_input.delta", output_index=0, delta="SELECT")
    for frames in ([added({**item, "input": ""}), delta], [delta]):
        response = read(created(), *frames, completed(item))
        assert [(each.arguments_text, each.custom) for each in response.tool_calls] == [("SELECT 1", True)]
    end = frame("custom_tool_call_input.done", output_index=0, input="SELECT 2")
    response = read(created(), added({**item, "input": ""}), delta, end, completed(item))
    assert (response.tool_calls[0].arguments_text, response.warnings) == ("SELECT 2", DIFFERS)


@pytest.mark.parametrize("index", [0, 1])
def test_a_second_call_that_only_the_last_event_has(index: int) -> None:
    one, two = call(1), call(2)
    for frames in ([added(call(1, "")), arguments(ROME), done(one)], [done(one)], [added(one)]):
        response = read(created(), *frames, completed(*([one, two] if index else [two, one])))
        assert sorted(calls_of(response)) == [("call_1", "weather", ROME), ("call_2", "weather", ROME)]


def test_calls_that_share_an_index() -> None:
    one, two = call(1), call(2)
    for frames in (
        [added(call(1, "")), added(call(2, "")), arguments(ROME, item_id="fc_1"), arguments(ROME, item_id="fc_2")],
        [done(one), done(two)],
        [done(one), added(call(2, "")), arguments(ROME), done(two)],
    ):
        for last in (completed(), completed(one, two)):
            assert sorted(calls_of(read(created(), *frames, last))) == [
                ("call_1", "weather", ROME),
                ("call_2", "weather", ROME),
            ]


@pytest.mark.parametrize("stage", ["arguments", "item", "last"])
@pytest.mark.parametrize("missing", [["name"], ["call_id"], ["name", "call_id"], ["name", "call_id", "id"]])
def test_a_call_is_announced_when_its_name_and_id_are_known(missing: list[str], stage: str) -> None:
    start = call(arguments="", **dict.fromkeys(missing, ""))
    known = {"name": "weather", "call_id": "call_1"}
    snapshot = {
        "arguments": frame("function_call_arguments.done", output_index=0, arguments=ROME, **known),
        "item": done(call()),
        "last": b"",
    }[stage]
    last = completed(call()) if stage == "last" else completed()
    frames = [created(), added(start), arguments('{"city": '), arguments('"Roma"}'), snapshot, last]
    assert calls_of(read(*frames)) == [("call_1", "weather", ROME)]


def test_a_call_that_was_never_announced() -> None:
    for item in (call(), {**call(), "id": None}):
        response = read(
            created(), arguments('{"city": ', item_id="fc_1"), arguments('"Ro', item_id="fc_1"), completed(item)
        )
        assert calls_of(response) == [("call_1", "weather", ROME)]


def test_a_name_that_never_comes() -> None:
    response = read(created(), added(call(arguments="", name="")), arguments(ROME), completed())
    assert calls_of(response) == [("call_1", "", ROME)]
    assert calls_of(read(created(), added(call(arguments=ROME, call_id="")), completed())) == [
        ("fc_1", "weather", ROME)
    ]


def test_the_first_name_and_id_of_a_call_stay() -> None:
    response = read(created(), added(call(arguments="")), done(call(name="other")), completed())
    assert (calls_of(response), response.warnings) == ([("call_1", "weather", ROME)], DIFFERS)


def test_a_call_is_finished_as_soon_as_it_is_whole() -> None:
    events = events_of(
        created(), added(call(arguments="")), arguments(ROME), done(call()), text("Hi", item=1), completed()
    )
    assert [type(event) for event in events][1:5] == [ToolCallStarted, ToolCallDelta, ToolCallFinished, TextDelta]


# The end.

QUOTA = {"code": "insufficient_quota", "type": "insufficient_quota", "message": "You exceeded your current quota"}
FILTERED = {"code": "content_policy_violation", "type": "invalid_request_error", "message": "Rejected."}


def failed(error: Any = None, *output: JSON, **fields: Any) -> bytes:
    return frame("failed", response=whole(*output, status="failed", error=error, **fields))


def error_frame(error: JSON, *, has_head: bool = True) -> bytes:
    data = json.dumps({"type": "error", "sequence_number": 9, "error": error}).encode()
    return (b"event: error\n" if has_head else b"") + b"data: " + data + b"\n\n"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FILTERED, errors.ContentFilterError),
        (QUOTA, errors.QuotaExceededError),
        ({"code": "rate_limit_exceeded", "message": "Slow down"}, errors.RateLimitError),
    ],
)
@pytest.mark.parametrize("has_head", [True, False])
@pytest.mark.parametrize("order", ["failed first", "error first", "cut end"])
def test_the_reason_of_a_failure_may_come_before_or_after_it(
    order: str, has_head: bool, error: JSON, kind: type[errors.APIError]
) -> None:
    pair = [failed(), error_frame(error, has_head=has_head)]
    frames = {"failed first": pair, "error first": pair[::-1], "cut end": [pair[0], pair[1].rstrip()]}[order]
    body = created() + text("Hel") + b"".join(frames)
    for chunks in ([body], cuts.every(body, 1)):
        with pytest.raises(kind, match=error["message"]) as caught:
            decode_body(API, chunks)
        assert caught.value.partial.completion == "Hel"


@pytest.mark.parametrize(
    "rest", [b"", b"data: [DONE]\n\n", b": keep-alive\n\n", completed(message(piece("Hello"))), text("lo"), failed()]
)
def test_a_failure_without_a_reason_is_an_error(rest: bytes) -> None:
    with pytest.raises(errors.ServerError, match="the answer was failed"):
        decode_body(API, created() + text("Hel") + failed() + rest)


def test_a_failed_response_keeps_what_only_its_last_event_has() -> None:
    usage = {"input_tokens": 3, "output_tokens": 1}
    body = created() + text("Hel") + failed(QUOTA, message(piece("Hello")), call(), usage=usage)
    with pytest.raises(errors.QuotaExceededError) as caught:
        decode_body(API, body)
    partial = caught.value.partial
    assert (partial.completion, len(partial.tool_calls), partial.usage.input_tokens) == ("Hello", 1, 3)


@pytest.mark.parametrize("status", ["completed", "incomplete", None])
def test_an_error_is_no_success_whatever_the_status(status: str | None) -> None:
    response = whole(message(piece("Hello")), status=status, error=QUOTA)
    bodies = [created() + frame("completed", response=response)]
    if status:
        bodies.append(json.dumps(response).encode())
    for body in bodies:
        with pytest.raises(errors.QuotaExceededError):
            decode_body(API, body)


def test_an_incomplete_response_is_reconciled_too() -> None:
    last = frame("incomplete", response=whole(message(piece("Hello")), call(), status="incomplete"))
    response = read(created(), text("Hel"), last)
    assert (response.completion, len(response.tool_calls), response.finish_reason) == ("Hello", 1, "length")


@pytest.mark.parametrize("end", [[RST], [HANG], [END]])
async def test_a_connection_that_ends_after_a_failure_is_that_failure(end: list[Step]) -> None:
    steps: list[Step] = [HEAD, chunk(created(), failed(None)), *end]
    timeouts = Timeouts(idle=0.05)
    async with Loopback(steps) as server:
        options = {"base_url": f"{server.url}", "api_key": "sk-test", "timeouts": timeouts, "max_attempts": 1}
        async with LLMClient("openai-responses:gpt-5", **options) as client:
            with pytest.raises(errors.ServerError, match="the answer was failed"):
                await client.stream("Hi", echo=None)


# Any answer, with any of its levels missing or cut.

_WORDS = st.text(min_size=1, max_size=12)


@st.composite
def outputs(draw: st.DrawFn) -> list[JSON]:
    """Draw items, each with letters of its own, so that lost and repeated letters show whatever their order."""
    items: list[JSON] = []
    for index in range(draw(st.integers(1, 4))):
        letter = st.text(alphabet=chr(ord("a") + index), min_size=1, max_size=9)
        kind = draw(st.sampled_from(["message", "reasoning", "call"]))
        if kind == "message":
            items.append(
                message(*(piece(each) for each in draw(st.lists(letter, min_size=1, max_size=2))), id=f"m{index}")
            )
        elif kind == "reasoning":
            items.append({**reasoning(*draw(st.lists(letter, min_size=1, max_size=2))), "id": f"r{index}"})
        else:
            items.append(call(index, json.dumps({"k": draw(letter)})))
    return items


def deltas_of(item: JSON, index: int, dice: random.Random) -> list[bytes]:
    """Return the deltas of an item up to a random place, with their `done` events or without."""
    found = []
    place: JSON = {"output_index": index, "item_id": item["id"]}
    if item["type"] == "function_call":
        whole_text, name, at = item["arguments"], "function_call_arguments", place
        parts = [(whole_text, name, at, "arguments")]
    elif item["type"] == "message":
        parts = [
            (each["text"], "output_text", {**place, "content_index": n}, "text")
            for n, each in enumerate(item["content"])
        ]
    else:
        parts = [
            (each["text"], "reasoning_summary_text", {**place, "summary_index": n}, "text")
            for n, each in enumerate(item["summary"])
        ]
    for words, name, at, field in parts:
        length = dice.choice([len(words), dice.randint(0, len(words))])
        found += [frame(f"{name}.delta", **at, delta=each) for each in words[:length]]
        if dice.random() < 0.5:
            found.append(frame(f"{name}.done", **at, **{field: words}))
        elif length < len(words):
            break
    return found


@given(outputs(), st.randoms(use_true_random=False))
@settings(max_examples=150 if not recordings.IS_SOAK else 10_000)
def test_every_letter_comes_once(items: list[JSON], dice: random.Random) -> None:
    frames = [created()]
    for index, item in enumerate(items):
        empty = (
            {"content": []}
            if item["type"] == "message"
            else {"summary": []}
            if item["type"] == "reasoning"
            else {"arguments": ""}
        )
        if dice.random() < 0.7:
            frames.append(added({**item, **empty}, index))
        if dice.random() < 0.8:
            frames += deltas_of(item, index, dice)
        if dice.random() < 0.6:
            frames.append(done(item, index))
    events: list[Event] = list(decode_events(API, b"".join([*frames, completed(*items)])))
    check_grammar(events)
    response = decode_body(API, b"".join([*frames, completed(*items)]))
    expected = "".join(each["text"] for item in items for each in item.get("content", item.get("summary", ())))
    assert sorted(response.completion + response.thinking) == sorted(expected)
    assert sorted(calls_of(response)) == sorted(
        (item["call_id"], item["name"], item["arguments"]) for item in items if item["type"] == "function_call"
    )
