"""Encode responses of the Responses API, and parse its requests."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lm_deluge.encoders.openai_responses.request import parse_request
from lm_deluge.encoders.openai_responses.response import ENCODER, encode_response, encode_stream
from lm_deluge.errors import BadRequestError, RateLimitError
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.testing import decode_events

START = ResponseStarted("resp_1", "gpt-5")
END = ResponseFinished("stop", "completed")


def frames_of(*events: Event) -> list[tuple[str, dict[str, Any]]]:
    """Return the types of the frames, without the prefix `response.`, and their fields."""
    found = []
    for frame in encode_stream(events):
        head, data, *rest = frame.decode().split("\n")
        fields = json.loads(data.removeprefix("data: "))
        assert rest == ["", ""]
        assert head == f"event: {fields['type']}"
        found.append((fields["type"].removeprefix("response."), fields))
    assert [fields["sequence_number"] for _, fields in found] == list(range(len(found)))
    return found


def types_of(*events: Event) -> list[str]:
    return [kind for kind, _ in frames_of(*events)]


def items_of(*events: Event) -> list[dict[str, Any]]:
    """Return the output of the unstreamed response, after a check that a stream ends with the same output."""
    output: list[dict[str, Any]] = json.loads(encode_response(events))["output"]
    streamed = frames_of(*events)[-1][1]["response"]
    assert streamed["output"] == output
    return output


def test_the_frames_of_a_message() -> None:
    assert types_of(START, TextDelta("Hel"), TextDelta("lo"), RefusalDelta("No."), END) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_a_frame_comes_as_soon_as_its_event_went_in() -> None:
    said = {
        START: "response.in_progress",
        ReasoningDelta("Hm."): '"delta":"Hm."',
        TextDelta("Hel"): '"delta":"Hel"',
        ToolCallStarted(0, "c", "f"): '"type":"function_call"',
        ToolCallDelta(0, "[1"): '"delta":"[1"',
    }
    out = ""
    checked = 0

    def watched() -> Any:
        nonlocal checked
        for event, words in said.items():
            assert words not in out
            yield event
            assert words in out  # at the request for the next event, the frames of this event are out
            checked += 1

    for frame in encode_stream(watched()):
        out += frame.decode()
    assert checked == len(said)


def test_calls_are_items_of_their_own_however_mixed() -> None:
    whole = [ToolCallFinished(index, f"c{index}", "f", f"[{index}]", [index]) for index in (0, 1)]
    starts = [ToolCallStarted(0, "c0", "f"), ToolCallStarted(1, "c1", "f")]
    pieces = [ToolCallDelta(1, "[1"), ToolCallDelta(0, "[0"), ToolCallDelta(1, "]"), ToolCallDelta(0, "]")]
    expected = [
        {
            "id": f"fc_{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"c{index}",
            "name": "f",
            "arguments": f"[{index}]",
        }
        for index in (0, 1)
    ]
    assert items_of(START, *starts, *pieces, *whole, END) == expected
    # A response that was not streamed has complete calls only.
    assert items_of(START, *whole, END) == expected


def test_opaque_data_after_an_item_completes_it() -> None:
    item = {"type": "reasoning", "id": "rs_x", "encrypted_content": "gA", "summary": []}
    image = {"type": "image_generation_call", "id": "ig_x", "result": "AA=="}
    call = ToolCallFinished(0, "c", "f", "{}", {})
    found = items_of(
        START,
        ReasoningDelta("Hm."),
        ProviderPart("openai", "reasoning", item),
        TextDelta("Hi"),
        ProviderPart("openai", "message", {"phase": "final_answer"}),
        call,
        ProviderPart("openai", "function_call", {"namespace": "crm"}),
        MediaDelta("image/png", "AA=="),
        ProviderPart("openai", "image_generation_call", image),
        ProviderPart("openai", "web_search_call", {"type": "web_search_call", "id": "ws"}),
        END,
    )
    assert (found[0], found[3], found[4]) == (item, image, {"type": "web_search_call", "id": "ws"})
    assert (found[1]["phase"], found[2]["namespace"]) == ("final_answer", "crm")


def test_opaque_data_without_an_item_is_an_item_or_left_out() -> None:
    found = items_of(
        START,
        ReasoningDelta("Hm."),
        MediaDelta("image/png", "AA=="),
        MediaDelta("image/*", url="https://a.test"),
        MediaDelta("audio/pcm", "AA=="),
        ProviderPart("openai", "message", {"phase": "lost"}),
        ProviderPart("anthropic", "signature", "text"),
        ProviderPart("anthropic", "server_tool_use", {"type": "server_tool_use"}),
        ProviderPart("openai", "output_item", {"no": "type"}),
        END,
    )
    assert found == [
        {"id": "rs_0", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {
            "id": "ig_1",
            "type": "image_generation_call",
            "status": "completed",
            "result": "AA==",
            "output_format": "png",
        },
    ]


def test_sources_count_from_the_beginning_of_their_piece() -> None:
    raw = {"type": "file_citation", "file_id": "f", "index": 3}
    link = Citation("https://a.test", "T", 8, 9)
    break_ = ProviderPart("openai", "web_search_call", {"type": "web_search_call"})
    events = [START, TextDelta("Hello"), break_, TextDelta("Look"), link, Citation(raw=raw), Citation(title="no"), END]
    assert items_of(*events)[2]["content"][0]["annotations"] == [
        {"type": "url_citation", "title": "T", "url": "https://a.test", "start_index": 3, "end_index": 4},
        raw,
    ]
    # A citation before any text still opens a text part.
    assert items_of(START, Citation("https://a.test"), END)[0]["content"][0]["text"] == ""


@pytest.mark.parametrize(
    ("reason", "raw", "status", "detail"),
    [
        ("stop", None, "completed", None),
        ("tool_calls", "tool_calls", "completed", None),
        ("pause", None, "completed", None),
        ("length", None, "incomplete", "max_output_tokens"),
        ("length", "max_tokens", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "incomplete", "content_filter"),
        ("error", None, "failed", None),
    ],
)
def test_how_an_answer_ends(reason: Any, raw: str | None, status: str, detail: str | None) -> None:
    kind, fields = frames_of(START, ResponseFinished(reason, raw))[-1]
    assert kind == status == fields["response"]["status"]
    assert fields["response"]["incomplete_details"] == (None if detail is None else {"reason": detail})


def test_an_answer_that_was_cut_has_no_end() -> None:
    events = [START, TextDelta("Hel")]
    assert types_of(*events)[-1] == "output_item.done"
    assert json.loads(encode_response(events))["status"] == "in_progress"
    assert frames_of(TextDelta("a"))[0][1]["response"]["id"] == ""


def test_an_error_in_the_stream() -> None:
    frame = ENCODER.encode_stream_error(RateLimitError("Slow", status_code=429))
    with pytest.raises(RateLimitError, match="Slow"):
        list(decode_events(ENCODER.name, b"".join(encode_stream([START])) + frame))


# Requests.

PNG = b"\x89PNG\r\n\x1a\n rest"


def request(**fields: Any) -> bytes:
    return json.dumps({"model": "gpt-5", "input": "Hi", **fields}).encode()


def read_items(*items: Any) -> Conversation:
    return parse_request(request(input=list(items))).conversation


def test_a_conversation_is_read() -> None:
    reasoning = {"type": "reasoning", "id": "rs", "summary": [{"text": "Hm."}], "content": [{"text": "So."}, 5]}
    data = base64.b64encode(PNG).decode()
    conversation = read_items(
        {"role": "system", "content": "A"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "B"}]},
        reasoning,
        {"type": "web_search_call", "id": "ws"},
        {"type": "brand_new", "id": "bn"},
        {
            "role": "assistant",
            "id": "msg",
            "status": "completed",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "C"}, {"type": "refusal", "refusal": "D"}],
        },
        {"type": "function_call", "id": "fc", "call_id": "1", "name": "f", "arguments": "{", "namespace": "n"},
        {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {
            "type": "custom_tool_call_output",
            "call_id": "2",
            "output": [
                {"type": "input_text", "text": "two"},
                {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{data}"},
            ],
        },
    )
    system, user, assistant, tool = conversation
    assert (system, user) == (Message.system("A"), Message.user("B"))
    owner = "openai-responses"
    assert assistant.parts[:6] == (
        ReasoningPart("Hm.So."),
        ProviderDataPart(owner, "reasoning", reasoning),
        ProviderDataPart(owner, "web_search_call", {"type": "web_search_call", "id": "ws"}),
        ProviderDataPart(owner, "output_item", {"type": "brand_new", "id": "bn"}),
        TextPart("C"),
        RefusalPart("D"),
    )
    assert assistant.parts[6] == ProviderDataPart(owner, "message", {"phase": "commentary"})
    call, rest, custom = assistant.parts[7:]
    assert isinstance(call, ToolCallPart)
    assert (call.arguments_text, call.arguments) == ("{", None)
    assert call.arguments_error
    assert rest == ProviderDataPart(owner, "function_call", {"namespace": "n"})
    assert custom == ToolCallPart("2", "g", "x", custom=True)
    assert tool.parts == (
        ToolResultPart("1", "one"),
        ToolResultPart("2", "two", (ImagePart(Media(media_type="image/png", data=PNG)),)),
    )


def test_media_are_read() -> None:
    data = base64.b64encode(b"%PDF-1 rest").decode()
    (message,) = read_items(
        {
            "role": "user",
            "content": [
                {"type": "input_image", "detail": "low", "file_id": "i"},
                {"type": "input_image", "image_url": "https://a.test/i.png"},
                {"type": "input_file", "file_id": "f"},
                {"type": "input_file", "file_url": "https://a.test/f.pdf"},
                {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"},
            ],
        }
    )
    assert [part.media.file_id or part.media.url or part.media.filename for part in message.parts] == [
        "i",
        "https://a.test/i.png",
        "f",
        "https://a.test/f.pdf",
        "a.pdf",
    ]


def test_parameters_are_parsed_and_unknown_fields_are_kept() -> None:
    parsed = parse_request(
        request(
            instructions="Be short.",
            stream=True,
            temperature=0.5,
            max_output_tokens=9,
            reasoning={"effort": "low", "summary": None},
            text={"format": {"type": "json_object"}, "verbosity": "low"},
            include=["message.output_text.logprobs"],
            tools=[
                {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": None},
                {"type": "function", "name": "g", "defer_loading": True},
                {"type": "web_search"},
            ],
            tool_choice={"type": "function", "name": "f"},
            previous_response_id="resp_0",
        )
    )
    assert list(parsed.conversation) == [Message.system("Be short."), Message.user("Hi")]
    assert parsed.is_streamed
    params = parsed.params
    assert (params.temperature, params.max_new_tokens, params.reasoning_effort, params.verbosity) == (
        0.5,
        9,
        "low",
        "low",
    )
    assert (params.json_mode, params.logprobs, params.tool_choice) == (True, True, "f")
    assert parsed.tools == (
        Tool(name="f", parameters={"type": "object"}),
        Tool(name="g"),
        ProviderTool({"type": "web_search"}),
    )
    assert parsed.extra == {"previous_response_id": "resp_0", "tools": parsed.raw["tools"]}
    kept = {
        "reasoning": {"effort": "low", "summary": "detailed"},
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []},
        "text": {"format": {"type": "text"}, "brand_new": 1},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    assert parse_request(request(**kept)).extra == kept
    schema = {"type": "object"}
    assert parse_request(request(text={"format": {"type": "json_schema", "schema": schema}})).output == schema


BAD: list[tuple[Any, str]] = [
    (b"[]", "Invalid type for 'body'"),
    (b"{", "could not parse the JSON"),
    (b'{"input": "Hi"}', "must provide a model"),
    (b'{"model": "m"}', "Missing required parameter: 'input'"),
    ({"input": []}, "Invalid 'input': empty array"),
    ({"input": [5]}, r"Invalid type for 'input\[0\]'"),
    ({"input": [{"content": "x"}]}, r"Missing required parameter: 'input\[0\].role'"),
    ({"input": [{"role": "robot", "content": "x"}]}, "Invalid value: 'robot'"),
    ({"input": [{"role": "user"}]}, r"Missing required parameter: 'input\[0\].content'"),
    ({"input": [{"role": "user", "content": 5}]}, r"Invalid type for 'input\[0\].content'"),
    ({"input": [{"role": "user", "content": [5]}]}, r"Invalid type for 'input\[0\].content\[0\]'"),
    ({"input": [{"role": "user", "content": [{"type": "output_text"}]}]}, "Invalid value: 'output_text'"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, r"Missing required parameter: 'input\[0\].output'"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "/etc/passwd"}]}]},
        "expected an http",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "/etc/passwd"}]}]},
        "expected an http",
    ),
    ({"reasoning": {"effort": "huge"}}, "Invalid value: 'huge' for 'reasoning.effort'"),
    ({"tool_choice": 5}, "Invalid type for 'tool_choice'"),
    ({"tools": [5]}, r"Invalid type for 'tools\[0\]'"),
    ({"tools": [{"type": "function"}]}, r"Missing required parameter: 'tools\[0\].name'"),
    ({"temperature": 9}, "temperature=9 is not a number between"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_requests_that_cannot_be_answered_are_refused(body: Any, message: str) -> None:
    with pytest.raises(BadRequestError, match=message) as caught:
        parse_request(body if isinstance(body, bytes) else request(**body))
    assert caught.value.status_code == 400
