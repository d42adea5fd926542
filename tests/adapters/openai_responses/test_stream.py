"""The Responses API from literal frames: the parts of a response, whichever events a host omits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge import errors
from lm_deluge.errors import DelugeError, ProtocolError, TruncatedError
from lm_deluge.events import (
    Citation,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from lm_deluge.testing import decode_body
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
    read,
    text,
    whole,
)

OWNER = "recording"
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather"}


def test_a_simple_answer_event_by_event() -> None:
    usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2, "total_tokens": 11}
    finished = message(piece("Hello"))
    events = events_of(
        created(),
        added({**finished, "content": []}),
        frame("content_part.added", output_index=0, content_index=0, part=piece("")),
        text("Hel", obfuscation="x7Gh", logprobs=[]),
        text(""),
        text("lo"),
        frame("output_text.done", output_index=0, content_index=0, text="Hello"),
        frame("content_part.done", output_index=0, content_index=0, part=piece("Hello")),
        done(finished),
        completed(finished, usage=usage),
        b"data: [DONE]\n\n",
    )
    assert events[:3] == [ResponseStarted("resp_1", "gpt-5-2025"), TextDelta("Hel"), TextDelta("lo")]
    assert (events[3].usage.input_tokens, events[3].usage.cache_read_tokens, events[3].usage.raw) == (9, 4, usage)
    assert events[4:] == [ResponseFinished("stop", "completed")]


# Content that a host omits in one event is read from another event.

HELLO = message(piece("Hello"))


@pytest.mark.parametrize(
    "frames",
    [
        [text("Hel"), text("lo")],
        [frame("output_text.done", output_index=0, content_index=0, text="Hello")],
        [text("Hel"), frame("output_text.done", output_index=0, content_index=0, text="Hello")],
        [frame("content_part.done", output_index=0, content_index=0, part=piece("Hello"))],
        [added({**HELLO, "content": []}), done(HELLO)],
        [done(HELLO)],
        [done(HELLO), done(HELLO)],
        [text("He"), done(HELLO)],
        [],
        # Missing indexes: the id of the item identifies it; without an id it is the first item.
        [frame("output_text.delta", delta="Hel", item_id="m"), frame("output_text.delta", delta="lo", item_id="m")],
        [frame("output_text.delta", delta="Hello"), frame("output_text.done", text="Hello")],
    ],
)
def test_text_is_emitted_once_from_whichever_event_contains_it(frames: list[bytes]) -> None:
    events = events_of(created(), *frames, completed(HELLO))
    check_grammar(events)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"


def test_an_item_whose_id_changes_with_every_event_is_one_item() -> None:
    """Seen from GitHub Copilot, 2026-02."""
    ids = iter("abcdefgh")
    response = read(
        created(),
        added({**HELLO, "id": next(ids), "content": []}),
        text("Hello", item_id=next(ids)),
        frame("output_text.done", output_index=0, content_index=0, item_id=next(ids), text="Hello"),
        done({**HELLO, "id": next(ids)}),
        completed({**HELLO, "id": next(ids)}),
    )
    assert response.completion == "Hello"


def test_items_without_indexes_count_as_the_first_item_each() -> None:
    first, second = message(piece("One. ")), message(piece("Two, longer."), id="msg_2")
    events = events_of(created(), added(first), done(first), added(second), text("Two, "), done(second), completed())
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "One. Two, longer."


def test_two_messages_are_two_pieces_of_the_text() -> None:
    finished, final = message(piece("Wait. "), phase="commentary"), message(piece("42"), phase="final_answer")
    response = read(created(), text("Wait. "), done(finished), text("42", item=1), done(final, 1), completed())
    kinds = [
        (type(part).__name__, getattr(part, "data", getattr(part, "text", None))) for part in response.content.parts
    ]
    assert kinds == [
        ("TextPart", "Wait. "),
        ("ProviderDataPart", {"phase": "commentary"}),
        ("TextPart", "42"),
        ("ProviderDataPart", {"phase": "final_answer"}),
    ]


def test_a_refusal() -> None:
    refused = {"type": "refusal", "refusal": "I cannot."}
    place = {"output_index": 0, "content_index": 0}
    streamed = [
        frame("refusal.delta", **place, delta="I "),
        frame("refusal.delta", **place, delta="cannot"),
        frame("refusal.done", **place, refusal="I cannot."),
        done(message(refused)),
    ]
    for frames in (streamed, [done(message(refused))], []):
        events = events_of(created(), *frames, completed(message(refused)))
        assert "".join(event.text for event in events if isinstance(event, RefusalDelta)) == "I cannot."
        assert events[-1] == ResponseFinished("refusal", "completed")


def test_log_probabilities() -> None:
    tokens = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    assert events_of(created(), text("a", logprobs=tokens), completed())[1] == TextDelta(
        "a", (TokenLogprob("a", -0.5, (97,)),)
    )
    assert events_of(created(), completed(message(piece("a", logprobs=tokens))))[1].logprobs == (
        TokenLogprob("a", -0.5, (97,)),
    )


# Reasoning.


def test_summaries_and_the_item_after_them() -> None:
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "encrypted_content": "gAAAA",
        "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}],
    }
    events = events_of(
        created(),
        added({"type": "reasoning", "id": "rs_1", "summary": []}),
        frame("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Fir"),
        frame("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="st."),
        frame("reasoning_summary_text.done", output_index=0, summary_index=0, text="First."),
        frame("reasoning_summary_text.done", output_index=0, summary_index=1, text="Then."),
        done(item),
        completed(item),
    )
    assert events[1:-1] == [
        ReasoningDelta("Fir"),
        ReasoningDelta("st."),
        ReasoningDelta("Then."),
        ProviderPart(OWNER, "reasoning", item),
    ]


@pytest.mark.parametrize("is_streamed", [True, False])
def test_reasoning_that_is_shown_itself(is_streamed: bool) -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm so"}]}
    streamed = [
        frame("reasoning_text.delta", output_index=0, content_index=0, delta="hm "),
        frame("reasoning_text.done", output_index=0, content_index=0, text="hm so"),
        frame("content_part.done", output_index=0, content_index=0, part=item["content"][0]),
    ]
    events = events_of(created(), *(streamed if is_streamed else []), done(item), completed(item))
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "hm so"
    assert events[-2] == ProviderPart(OWNER, "reasoning", item)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_summary"])
def test_reasoning_under_its_old_names(name: str) -> None:
    place = {"output_index": 0, "content_index": 0, "summary_index": 0}
    deltas = [frame(f"{name}.delta", **place, delta="hm "), frame(f"{name}.delta", **place, delta={"text": "so"})]
    assert read(created(), *deltas, frame(f"{name}.done", **place, text="hm so"), completed()).thinking == "hm so"


# Calls.


def arguments(delta: str, index: int = 0) -> bytes:
    return frame("function_call_arguments.delta", output_index=index, delta=delta)


WEATHER = [
    ToolCallStarted(0, "call_1", "weather"),
    ToolCallDelta(0, '{"city":'),
    ToolCallDelta(0, ' "Roma"}'),
    ToolCallFinished(0, "call_1", "weather", '{"city": "Roma"}', {"city": "Roma"}),
]


@pytest.mark.parametrize(
    "ends",
    [
        [arguments(' "Roma"}'), done({**CALL, "arguments": '{"city": "Roma"}'})],
        [frame("function_call_arguments.done", output_index=0, arguments='{"city": "Roma"}'), done(CALL)],
        [done({**CALL, "arguments": '{"city": "Roma"}'})],
        [arguments(' "Roma"}')],
    ],
)
def test_a_call(ends: list[bytes]) -> None:
    events = events_of(created(), added({**CALL, "arguments": ""}), arguments('{"city":'), *ends, completed())
    assert events[1:-1] == WEATHER
    assert events[-1] == ResponseFinished("tool_calls", "completed")


@pytest.mark.parametrize("place", ["item", "answer"])
def test_a_call_that_comes_whole(place: str) -> None:
    item = {**CALL, "arguments": '{"city": "Roma"}'}
    frames = [done(item)] if place == "item" else []
    events = events_of(created(), *frames, completed(item))
    assert events[1:-1] == [WEATHER[0], ToolCallDelta(0, '{"city": "Roma"}'), WEATHER[-1]]


def test_calls_whose_pieces_are_mixed() -> None:
    second = {**CALL, "call_id": "call_2"}
    events = events_of(
        created(), added(CALL), added(second, 1), arguments("{", 1), arguments("[", 0), arguments("}", 1),
        arguments("]", 0), done(second, 1), done(CALL), completed(),
    )  # fmt: skip
    check_grammar(events)
    assert [event.arguments for event in events if isinstance(event, ToolCallFinished)] == [{}, []]


def test_a_custom_tool() -> None:
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "sql", "input": "SELECT 1"}
    events = events_of(
        created(),
        added({**item, "input": ""}),
        frame("custom_tool_call_input.delta", output_index=0, delta="SELECT"),
        frame("custom_tool_call_input.done", output_index=0, input="SELECT 1"),
        done(item),
        completed(item),
    )
    assert events[-2] == ToolCallFinished(0, "call_1", "sql", "SELECT 1", None, None, custom=True)


def test_what_a_call_has_beside_its_arguments_is_kept() -> None:
    item = {**CALL, "arguments": "{}", "namespace": "crm", "status": "completed", "caller": None}
    assert events_of(created(), done(item), completed())[-2] == ProviderPart(
        OWNER, "function_call", {"namespace": "crm"}
    )


def test_a_call_without_an_id_or_a_name() -> None:
    events = events_of(
        created(), done({"type": "function_call", "arguments": None, "call_id": 5, "name": []}), completed()
    )
    assert events[1:-1] == [ToolCallStarted(0, "call_0", ""), ToolCallFinished(0, "call_0", "", "", {})]


# Tools of the provider, and opaque items.


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"type": "web_search_call", "id": "ws", "action": {"type": "search", "query": "q"}}, "web_search_call"),
        ({"type": "mcp_approval_request", "id": "mcpr", "name": "f", "arguments": "{}"}, "mcp_approval_request"),
        ({"type": "computer_call", "call_id": "c", "action": {"type": "click"}}, "computer_call"),
        ({"type": "from_the_future_call", "id": "x"}, "output_item"),
    ],
)
def test_items_of_the_provider_are_kept_whole(item: JSON, kind: str) -> None:
    for frames in ([added(item), frame("some_call.in_progress", output_index=0), done(item)], []):
        events = events_of(created(), *frames, completed(item))
        assert events[1:] == [ProviderPart(OWNER, kind, item), ResponseFinished("stop", "completed")]


def test_an_image_is_shown_and_kept() -> None:
    item = {"type": "image_generation_call", "id": "ig_1", "output_format": "webp", "result": "UklG"}
    partial = frame("image_generation_call.partial_image", output_index=0, partial_image_b64="AAAA")
    assert events_of(created(), partial, done(item), completed(item))[1:-1] == [
        MediaDelta("image/webp", "UklG", id="ig_1"),
        ProviderPart(OWNER, "image_generation_call", item),
    ]
    nothing = {"type": "image_generation_call", "id": 5, "result": None}
    assert events_of(created(), done(nothing), completed())[1:-1] == [
        ProviderPart(OWNER, "image_generation_call", nothing)
    ]
    bare = {"type": "image_generation_call", "id": 5, "result": "AA"}
    assert events_of(created(), done(bare), completed())[1] == MediaDelta("image/png", "AA")


# Sources.

LINK = {"type": "url_citation", "url": "https://example.org", "title": "T", "start_index": 1, "end_index": 3}


def test_sources_count_from_the_beginning_of_the_whole_text() -> None:
    cited = frame("output_text.annotation.added", output_index=1, content_index=0, annotation_index=0, annotation=LINK)
    events = events_of(
        created(),
        text("Look: "),
        text("there", item=1),
        cited,
        done(message(piece("there", annotations=[LINK])), 1),
        completed(),
    )
    assert [event for event in events if isinstance(event, Citation)] == [
        Citation("https://example.org", "T", 7, 9, LINK)
    ]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ({"type": "file_citation", "file_id": "f", "filename": "a.pdf", "index": 9}, (None, "a.pdf", None, None)),
        ({"type": "file_path", "file_id": "f", "index": 9}, (None, None, None, None)),
        (
            {"type": "container_file_citation", "file_id": "f", "filename": "a.png", "start_index": 0, "end_index": 2},
            (None, "a.png", 0, 2),
        ),
        ({**LINK, "start_index": "one"}, ("https://example.org", "T", None, 3)),
    ],
)
def test_sources_of_all_kinds_that_only_finished_items_name(annotation: JSON, expected: tuple[Any, ...]) -> None:
    (found,) = read(created(), completed(message(piece("Hi", annotations=[annotation, 5])))).citations
    assert (found.url, found.title, found.start, found.end) == expected
    assert found.raw == annotation


# The end.


@pytest.mark.parametrize(
    ("detail", "reason"),
    [({"reason": "max_output_tokens"}, "length"), ({"reason": "content_filter"}, "content_filter"), (None, "length")],
)
def test_an_incomplete_answer(detail: Any, reason: str) -> None:
    response = whole(status="incomplete", incomplete_details=detail)
    for body in ([created(), text("Hel"), frame("incomplete", response=response)], [json.dumps(response).encode()]):
        answer = read(*body)
        assert (answer.finish_reason, answer.raw_finish_reason) == (reason, "incomplete")


def test_a_call_that_the_limit_cut() -> None:
    incomplete = frame("incomplete", response=whole(status="incomplete"))
    answer = read(created(), added(CALL), arguments('{"ci'), incomplete)
    assert answer.finish_reason == "length"
    assert answer.tool_calls[0].arguments_text == '{"ci'
    assert answer.tool_calls[0].arguments_error


FAILURES = [
    ({"code": "server_error", "message": "Oops"}, errors.ServerError),
    ({"code": "rate_limit_exceeded", "message": "Slow down"}, errors.RateLimitError),
    ({"code": "invalid_prompt", "message": "No"}, errors.ContentFilterError),
    ({"code": "image_content_policy_violation", "message": "No"}, errors.ContentFilterError),
    ({"code": "vector_store_timeout", "message": "Late"}, errors.ServerError),
    (None, errors.ServerError),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES)
def test_an_answer_that_failed(error: Any, kind: type[DelugeError]) -> None:
    response = whole(status="failed", error=error, usage={"input_tokens": 3, "output_tokens": 1})
    for body in (created() + text("Hel") + frame("failed", response=response), json.dumps(response).encode()):
        with pytest.raises(kind) as caught:
            decode_body(API, body)
        assert caught.value.message == (error["message"] if error else "the answer was failed")
        assert caught.value.billed == "maybe"
    assert caught.value.partial.usage is None or caught.value.partial.usage.input_tokens == 3


@pytest.mark.parametrize(
    "data",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "Slow down", "param": None, "sequence_number": 2},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "Slow down"}},
        {"error": {"code": "rate_limit_exceeded", "message": "Slow down"}},
    ],
)
@pytest.mark.parametrize("head", [b"event: error\n", b""])
def test_an_error_in_the_stream(data: JSON, head: bytes) -> None:
    body = created() + text("Hel") + head + b"data: " + json.dumps(data).encode() + b"\n\n"
    with pytest.raises(errors.RateLimitError, match="Slow down") as caught:
        decode_body(API, body)
    assert caught.value.partial.completion == "Hel"


def test_a_cancelled_answer_is_no_success() -> None:
    with pytest.raises(errors.ServerError, match="the answer was cancelled"):
        read(created(), frame("cancelled", response=whole(status="cancelled")))


def test_a_stream_without_its_last_event_is_truncated() -> None:
    with pytest.raises(TruncatedError) as caught:
        read(created(), text("Hello"), done(HELLO), b"data: [DONE]\n\n")
    assert caught.value.partial.completion == "Hello"


@pytest.mark.parametrize("status", ["queued", "in_progress", None])
def test_a_plain_response_that_is_not_finished_is_an_error(status: Any) -> None:
    with pytest.raises(ProtocolError, match="not a finished response"):
        decode_body(API, json.dumps(whole(status=status, error=None)).encode())


def test_a_plain_error() -> None:
    with pytest.raises(errors.AuthenticationError):
        decode_body(API, b'{"error": {"code": "invalid_api_key", "message": "No."}}')


def test_frames_without_a_head_are_read_by_their_type() -> None:
    """Seen from OpenRouter, 2025-11."""
    body = created() + text("Hello") + completed(HELLO)
    lines = b"".join(line + b"\n" for line in body.split(b"\n") if not line.startswith(b"event:"))
    assert read(lines).completion == "Hello"


def test_events_after_the_end_are_ignored() -> None:
    events = events_of(created(), completed(HELLO), text("more"), b'event: error\ndata: {"error": {}}\n\n')
    assert events[1:] == [TextDelta("Hello"), ResponseFinished("stop", "completed")]


def test_values_of_wrong_types_are_ignored() -> None:
    body = [
        frame("created", response=5),
        frame("output_item.added", item=[1]),
        frame("output_item.done", item={"type": 5, "content": 7}),
        frame("output_item.done", item=message(5, {"type": "output_text", "text": 7, "annotations": {}})),
        frame("output_text.delta", delta={"a": 1}, logprobs=5),
        frame("output_text.annotation.added", annotation=[]),
        frame("content_part.done", part=7),
        frame("completed", response={"output": [5, {"type": None}], "usage": 7, "status": 9}),
    ]
    events = events_of(*body)
    check_grammar(events)
    assert events[-1].finish_reason == "stop"
