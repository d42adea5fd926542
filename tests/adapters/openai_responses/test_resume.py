"""A response in background mode whose stream breaks at any byte is resumed after the last decoded event."""

from __future__ import annotations

import json

import pytest

import cuts
from lm_deluge.adapters.adapter import Call, Resumable, ResumableDecoder
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.adapters.openai_responses.adapter import OpenAIResponses
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.openai_responses.response import encode_response, encode_stream
from lm_deluge.errors import TruncatedError
from lm_deluge.events import Event, ReasoningDelta, ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import ResponseBuilder
from lm_deluge.simulator import Script

ROW = ProviderRow(id="acme", otel_name="acme", adapter="openai-responses", base_url="")
CALL = Call(model=ModelRow(id="m", name="m", provider="acme"), provider=ROW, conversation=Conversation())
SCRIPT = Script(reasoning="Hm, 世界.", text="Grüße aus Genève 🙂", tool_calls=[("weather", {"city": "Roma"})])
EVENTS = SCRIPT.play(ParsedRequest(model="m", conversation=Conversation.user("Hi")), response_id="resp_1")
FRAMES = list(encode_stream(EVENTS))
BODY = b"".join(FRAMES)


def a_decoder() -> ResumableDecoder:
    decoder = OpenAIResponses().decoder(CALL)
    assert isinstance(decoder, ResumableDecoder)
    return decoder


def whole() -> list[Event]:
    decoder = a_decoder()
    return decoder.feed(BODY)


def content_of(events: list[Event]) -> tuple[object, ...]:
    builder = ResponseBuilder()
    builder.add_all(events)
    response = builder.response()
    return response.content, response.finish_reason, response.usage, response.response_id


def test_only_this_api_can_resume() -> None:
    assert isinstance(OpenAIResponses(), Resumable)
    assert not isinstance(OpenAIChat(), Resumable)
    assert not isinstance(OpenAIChat().decoder(CALL), ResumableDecoder)


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_response_cut_at_any_byte_is_whole_after_resuming(is_closed: bool) -> None:
    expected = whole()
    for position in range(len(BODY)):
        decoder = a_decoder()
        events = decoder.feed(BODY[:position])
        if decoder.is_finished:
            break
        if is_closed:  # the body ended regularly; else the connection was lost
            events += decoder.close()
            if decoder.is_finished:
                break
            assert isinstance(decoder.error, TruncatedError)
        if decoder.resume_point is None:
            assert position <= len(FRAMES[0])
            continue
        response_id, cursor = decoder.resume_point
        assert response_id == "resp_1"
        decoder.reopen()
        assert decoder.error is None
        events += decoder.feed(b"".join(FRAMES[cursor + 1 :]))
        assert events == expected
        assert decoder.is_finished


def test_repeated_events_are_ignored() -> None:
    for position in range(len(FRAMES[0]), len(BODY) - 5, 37):
        decoder = a_decoder()
        events = decoder.feed(BODY[:position])
        decoder.reopen()
        for chunk in cuts.at_random(BODY, seed=position, most=50):
            events += decoder.feed(chunk)
        assert events == whole()
        assert decoder.ignored > 0


def test_the_rest_may_come_as_a_plain_answer() -> None:
    document = encode_response(EVENTS)
    for position in range(len(FRAMES[0]), len(BODY) - 400, 97):
        decoder = a_decoder()
        events = decoder.feed(BODY[:position])
        if decoder.is_finished:
            break
        decoder.reopen()
        events += decoder.feed(document)
        events += decoder.close()
        assert decoder.error is None
        assert content_of(events) == content_of(whole())
        assert sum(type(event) is ResponseStarted for event in events) == 1
        assert sum(type(event) is ResponseFinished for event in events) == 1


def test_a_stream_without_sequence_numbers_has_no_resume_point() -> None:
    decoder = a_decoder()
    for line in BODY.split(b"\n\n")[:-2]:
        head, _, data = line.partition(b"\ndata: ")
        fields = {name: value for name, value in json.loads(data).items() if name != "sequence_number"}
        decoder.feed(head + b"\ndata: " + json.dumps(fields).encode() + b"\n\n")
    assert decoder.resume_point is None


def test_what_is_not_json_after_a_break_is_an_error() -> None:
    decoder = a_decoder()
    decoder.feed(FRAMES[0])
    decoder.reopen()
    decoder.feed(b"event: response.output_text.delta\ndata: {nonsense\n\n")
    assert decoder.error is not None
    assert "not JSON" in str(decoder.error)


def test_the_script_has_text_and_reasoning_in_pieces() -> None:
    kinds = [type(event) for event in EVENTS]
    assert min(kinds.count(TextDelta), kinds.count(ReasoningDelta)) > 1
