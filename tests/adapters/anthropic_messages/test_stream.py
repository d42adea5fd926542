"""Bodies of Anthropic's Messages and the events decoded from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.events import (
    Attempt,
    Citation,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.response import APIResponse
from lm_deluge.testing import encode_events
from lm_deluge.testing.decode import decode_body, decode_events
from lm_deluge.usage import Usage
from samples.anthropic_bytes import (
    API,
    OWNER,
    STOP,
    answer,
    block,
    call,
    delta,
    end,
    event,
    events_of,
    read,
    start,
    text,
)

HEAD = {"input_tokens": 10, "output_tokens": 1}


def opaque(kind: str, data: Any) -> ProviderPart:
    return ProviderPart(OWNER, kind, data)


def content_of(*blocks: bytes) -> list[Any]:
    """Return the events between the first and the last usage."""
    events = events_of(answer(*blocks))
    check_grammar(events)
    first, *between, last, finished = events[1:]
    assert isinstance(first, UsageReported)
    assert isinstance(last, UsageReported)
    assert isinstance(finished, ResponseFinished)
    return between


def test_a_transcript() -> None:
    body = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":'
        b'"assistant","model":"claude-x","content":[],"stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":10,"cache_read_input_tokens":3,"output_tokens":1}}}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"thinking","thinking":"","signature":""}}\n\n'
        b'event: ping\ndata: {"type": "ping"}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"thinking_delta","thinking":"Hm"}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"signature_delta","signature":"c2ln"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":1,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,'
        b'"delta":{"type":"text_delta","text":"Gr\xc3\xbc\xc3\x9fe"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":1}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":2,'
        b'"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":2,'
        b'"delta":{"type":"input_json_delta","partial_json":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":2,'
        b'"delta":{"type":"input_json_delta","partial_json":"{\\"a\\": "}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":2,'
        b'"delta":{"type":"input_json_delta","partial_json":"1}"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":2}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"tool_use",'
        b'"stop_sequence":null},"usage":{"output_tokens":20,"output_tokens_details":{"thinking_tokens":7}}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    first_usage = {"input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 1}
    last_usage = {**first_usage, "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 7}}
    assert events_of(body) == [
        ResponseStarted("msg_1", "claude-x"),
        UsageReported(Usage(input_tokens=13, output_tokens=1, cache_read_tokens=3, raw=first_usage)),
        ReasoningDelta("Hm"),
        opaque("signature", "c2ln"),
        TextDelta("Grüße"),
        ToolCallStarted(0, "toolu_1", "f"),
        ToolCallDelta(0, '{"a": '),
        ToolCallDelta(0, "1}"),
        ToolCallFinished(0, "toolu_1", "f", '{"a": 1}', {"a": 1}),
        UsageReported(
            Usage(input_tokens=13, output_tokens=20, cache_read_tokens=3, reasoning_tokens=7, raw=last_usage)
        ),
        ResponseFinished("tool_calls", "tool_use"),
    ]


@pytest.mark.parametrize(
    ("raw", "reason", "warnings"),
    [
        ("end_turn", "stop", ()),
        ("stop_sequence", "stop", ()),
        ("max_tokens", "length", ()),
        ("model_context_window_exceeded", "length", ()),
        ("tool_use", "tool_calls", ()),
        ("pause_turn", "pause", ()),
        ("compaction", "pause", ()),
        ("refusal", "refusal", ()),
        ("brand_new", "stop", ("unknown_finish_reason",)),
    ],
)
def test_why_an_answer_ends(raw: str, reason: str, warnings: tuple[str, ...]) -> None:
    assert events_of(answer(text(0, "a"), reason=raw))[-1] == ResponseFinished(reason, raw, warnings)


def test_hidden_thoughts_stand_where_they_came() -> None:
    hidden = {"type": "redacted_thinking", "data": "eA=="}
    assert content_of(block(0, hidden), text(1, "a")) == [opaque("block", hidden), TextDelta("a")]


def test_a_thought_that_is_not_shown_has_its_signature_all_the_same() -> None:
    thought = {"type": "thinking", "thinking": "", "signature": ""}
    assert content_of(block(0, thought, {"type": "signature_delta", "signature": "s"})) == [opaque("signature", "s")]


def test_a_thought_without_a_signature_is_a_thought() -> None:
    assert content_of(block(0, {"type": "thinking", "thinking": "Hm"})) == [ReasoningDelta("Hm")]


WEB = {
    "type": "web_search_result_location",
    "cited_text": "c",
    "url": "https://a.test",
    "title": "A",
    "encrypted_index": "i",
}
SOURCES = [
    (WEB, "https://a.test", "A"),
    (
        {"type": "char_location", "cited_text": "c", "document_index": 0, "document_title": "D", "start_char_index": 1},
        None,
        "D",
    ),
    ({"type": "page_location", "cited_text": "c", "document_title": None, "start_page_number": 1}, None, None),
    ({"type": "content_block_location", "cited_text": "c", "document_title": "D", "start_block_index": 0}, None, "D"),
    (
        {"type": "search_result_location", "cited_text": "c", "source": "https://kb.test/1", "title": "T"},
        "https://kb.test/1",
        "T",
    ),
]


@pytest.mark.parametrize(("raw", "url", "title"), SOURCES, ids=lambda value: str(value)[:30])
def test_sources_say_which_part_of_the_text_they_are_for(raw: dict, url: str | None, title: str | None) -> None:
    cited = block(
        1,
        {"type": "text", "text": "", "citations": []},
        {"type": "citations_delta", "citation": raw},
        {"type": "text_delta", "text": "the sky"},
        {"type": "text_delta", "text": " is"},
    )
    assert content_of(text(0, "Look: "), cited, text(2, " blue")) == [
        TextDelta("Look: "),
        opaque("citations", []),
        TextDelta("the sky"),
        TextDelta(" is"),
        Citation(url, title, 6, 16, raw),
        opaque("citations", [raw]),
        TextDelta(" blue"),
    ]


def test_blocks_of_text_are_one_text_but_for_the_user() -> None:
    response = read(answer(text(0, "a"), text(1, "b"), text(2, "c")))
    assert response.completion == "abc"
    mark = ProviderDataPart(OWNER, "citations", [])
    assert response.content.parts == (TextPart("a"), mark, TextPart("b"), mark, TextPart("c"))


def test_tools_of_the_provider_are_no_calls() -> None:
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"url": "https://a.test"}]}
    pieces = ({"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"query"', ': "x"}'))
    assert content_of(block(0, used, *pieces), block(1, found), text(2, "a")) == [
        opaque("block", {**used, "input": {"query": "x"}}),
        opaque("block", found),
        TextDelta("a"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"type": "mcp_tool_use", "id": "m", "name": "f", "server_name": "s", "input": {"a": 1}},
        {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": []},
        {"type": "code_execution_tool_result", "tool_use_id": "c", "content": {"stdout": "1"}},
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
        {"type": "not_known_yet", "field": [1]},
        {"nothing": "said"},
    ],
)
def test_other_blocks_are_kept_as_they_are(data: dict) -> None:
    assert content_of(block(0, data)) == [opaque("block", data)]


def test_a_summary_in_place_of_the_conversation() -> None:
    body = block(
        0,
        {"type": "compaction", "content": None},
        {"type": "compaction_delta", "content": "So far", "encrypted_content": "x"},
        {"type": "compaction_delta", "content": "."},
    )
    assert content_of(body) == [opaque("block", {"type": "compaction", "content": "So far.", "encrypted_content": "x"})]


def test_input_of_a_servers_tool_that_was_cut_is_left_out() -> None:
    used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    response = read(answer(block(0, used, {"type": "input_json_delta", "partial_json": '{"que'}), reason="max_tokens"))
    assert response.content.parts == (ProviderDataPart(OWNER, "block", used),)
    assert response.warnings == ("damaged_block",)


def test_a_call_whose_input_came_whole() -> None:
    assert content_of(call(0, "f", input={"a": [1]})) == [
        ToolCallStarted(0, "toolu_0", "f"),
        ToolCallDelta(0, '{"a":[1]}'),
        ToolCallFinished(0, "toolu_0", "f", '{"a":[1]}', {"a": [1]}),
    ]


def test_arguments_that_are_no_json_are_what_the_model_wrote() -> None:
    response = read(answer(call(0, "f", '{"a": "unfini'), reason="max_tokens"))
    (found,) = response.tool_calls
    assert (found.arguments_text, found.arguments) == ('{"a": "unfini', None)
    assert "not JSON" in (found.arguments_error or "")
    assert response.finish_reason == "length"


def test_a_call_that_code_made_says_which() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    response = read(answer(call(0, "f", caller=caller), call(1, "f", caller={"type": "direct"})))
    first, caller_part, second = response.content.parts
    assert caller_part == ProviderDataPart(OWNER, "tool_use", {"caller": caller})
    assert [part.id for part in (first, second) if isinstance(part, ToolCallPart)] == ["toolu_0", "toolu_1"]


def test_mixed_deltas_of_open_blocks() -> None:
    body = (
        event("content_block_start", index=0, content_block={"type": "tool_use", "id": "a", "name": "f", "input": {}})
        + event("content_block_start", index=1, content_block={"type": "tool_use", "id": "b", "name": "g", "input": {}})
        + delta(1, "input_json_delta", partial_json='{"x":')
        + delta(0, "input_json_delta", partial_json="{}")
        + delta(1, "input_json_delta", partial_json="2}")
        + event("content_block_stop", index=1)
        + event("content_block_stop", index=0)
    )
    assert [(found.id, found.arguments) for found in read(answer(body)).tool_calls] == [("a", {}), ("b", {"x": 2})]


def test_the_container_is_told_of_at_the_end() -> None:
    place = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
    body = start() + text(0, "a") + event("message_delta", delta={"stop_reason": "end_turn", "container": place}) + STOP
    assert read(body).content.parts == (TextPart("a"), ProviderDataPart(OWNER, "container", place))


def test_an_answer_that_is_all_in_its_head() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]
    response = read(start(content=content, stop_reason="tool_use") + STOP)
    assert response.completion == "a"
    assert response.tool_calls[0].arguments == {"a": 1}
    assert (response.finish_reason, response.warnings) == ("tool_calls", ())


class TestUsage:
    def test_the_last_number_that_is_one_holds(self) -> None:
        head = {"input_tokens": 10, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 1}
        last = {"input_tokens": None, "cache_read_input_tokens": 4, "output_tokens": 9}
        usage = read(start(usage=head) + text(0, "a") + end(usage=last) + STOP).usage
        assert usage == Usage(
            input_tokens=16,
            output_tokens=9,
            cache_read_tokens=4,
            cache_write_tokens=2,
            raw={**head, "cache_read_input_tokens": 4, "output_tokens": 9},
        )

    def test_none_is_none(self) -> None:
        assert read(start(usage=None) + text(0, "a") + end(usage=None) + STOP).usage is None

    @pytest.mark.parametrize("odd", ["seven", -1, True, 1.5, [7], {}])
    def test_what_is_no_count_is_to_be_estimated(self, odd: Any) -> None:
        raw = {"input_tokens": odd, "output_tokens": 3, "output_tokens_details": odd}
        usage = read(start(usage=raw) + text(0, "a") + end(usage=None) + STOP).usage
        assert usage == Usage(input_tokens=0, output_tokens=3, estimated=True, raw=raw)


class TestBegunAnew:
    """A proxy lost its upstream and sent the request again: blocks before the second `message_start` are discarded."""

    BODY = (
        start()
        + text(0, "first")
        + event("content_block_start", index=1, content_block={"type": "tool_use", "id": "a", "name": "f", "input": {}})
        + delta(1, "input_json_delta", partial_json='{"x":')
        + start(id="msg_2", usage={"input_tokens": 11, "output_tokens": 0})
        + text(0, "second")
        + end()
        + STOP
    )

    def test_the_answer_is_the_second_one(self) -> None:
        response = read(self.BODY)
        assert response.content.parts == (TextPart("second"),)
        assert (response.finish_reason, response.warnings) == ("stop", ("restarted",))
        assert response.usage is not None
        assert response.usage.input_tokens == 11

    def test_the_events_say_so(self) -> None:
        events = events_of(self.BODY)
        check_grammar(events)
        attempts = [each for each in events if isinstance(each, Attempt)]
        message = "the response restarted in mid-stream"
        assert attempts == [Attempt(2, "StreamInterruptedError", message, 0.0, "recording")]

    def test_calls_go_on_counting(self) -> None:
        response = read(start() + call(0, "f") + start() + call(0, "g") + end("tool_use") + STOP)
        assert [found.name for found in response.tool_calls] == ["g"]

    def test_a_head_that_is_repeated_at_once_changes_nothing(self) -> None:
        response = read(start() + start() + text(0, "a") + end() + STOP)
        assert (response.completion, response.warnings) == ("a", ())

    def test_behind_the_end_nothing_begins(self) -> None:
        response = read(start() + text(0, "a") + end() + start() + text(0, "b") + end() + STOP)
        assert (response.completion, response.warnings) == ("a", ("no_done",))


class TestPlain:
    CONTENT = (
        {"type": "thinking", "thinking": "Hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "See", "citations": [WEB]},
        {"type": "text", "text": "!", "citations": None},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    )

    def plain(self, **fields: Any) -> bytes:
        usage = {"input_tokens": 1, "output_tokens": 2}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": list(self.CONTENT)}
        return json.dumps({**message, "stop_reason": "tool_use", "usage": usage, **fields}).encode()

    def test_it_is_read_like_a_stream(self) -> None:
        response = decode_body(API, self.plain())
        assert response.content.parts == (
            ReasoningPart("Hm"),
            ProviderDataPart(OWNER, "signature", "s"),
            ProviderDataPart(OWNER, "block", {"type": "redacted_thinking", "data": "x"}),
            TextPart("See"),
            ProviderDataPart(OWNER, "citations", [WEB]),
            TextPart("!"),
            ToolCallPart("t", "f", '{"a":1}', {"a": 1}),
        )
        assert [(each.url, each.start, each.end) for each in response.citations] == [("https://a.test", 0, 3)]
        assert response.usage == Usage(input_tokens=1, output_tokens=2, raw={"input_tokens": 1, "output_tokens": 2})
        assert (response.response_id, response.model_external, response.finish_reason) == ("msg_1", "m", "tool_calls")

    def test_a_container_of_its_own(self) -> None:
        place = {"id": "container_1"}
        last = decode_body(API, self.plain(container=place)).content.parts[-1]
        assert last == ProviderDataPart(OWNER, "container", place)


DETAILS = {"type": "refusal", "category": "cyber", "explanation": "Blocked by a policy."}
REFUSED = [
    ResponseStarted("msg_1", "claude"),
    UsageReported(Usage(input_tokens=3, output_tokens=0)),
    ResponseFinished("refusal", "refusal", (), DETAILS),
]


@pytest.mark.parametrize("is_streamed", [True, False])
def test_the_details_of_a_refusal_are_kept(is_streamed: bool) -> None:
    body = b"".join(encode_events(API, REFUSED)) if is_streamed else find_encoder(API).encode_response(REFUSED)
    assert b'"stop_details":{"type":"refusal"' in body
    response = decode_body(API, body)
    assert (response.finish_reason, response.finish_details) == ("refusal", DETAILS)
    assert APIResponse.from_dict(response.to_dict()) == response


def test_a_summary_in_pieces_is_joined() -> None:
    pieces = [delta(0, "compaction_delta", content=each) for each in ("Sum", "mary")]
    summary = event("content_block_start", index=0, content_block={"type": "compaction", "content": "The "})
    body = start() + summary + b"".join(pieces) + event("content_block_stop", index=0) + end() + STOP
    (part,) = [each for each in decode_events(API, body) if isinstance(each, ProviderPart)]
    assert part.data == {"type": "compaction", "content": "The Summary"}
