"""A response in the next request: sent back completely to its own provider, and to another provider with the parts that
the other API supports."""

from __future__ import annotations

import base64
import itertools
import re

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.events import Event, MediaDelta, ProviderPart
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, ToolCallPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.response import APIResponse, ResponseBuilder
from mirrors import find_mirrors

MIRRORS = find_mirrors()
APIS = adapter_names()
PAIRS = [(one, other) for one, other in itertools.product(APIS, APIS) if one in MIRRORS]
# Opaque data that is sent back in a field of the request, or is only shown to the user.
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
MODEL = "anthropic.claude-opus-4"  # the vendor decides the format of Bedrock's native API
NOT_IN_MESSAGES = frozenset({"container", "search_suggestions"})
SETTINGS = settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))


def row_of(api: str) -> ProviderRow:
    return ProviderRow(id=api, otel_name=api, adapter=api, base_url="https://acme.test")


def call_of(api: str, conversation: Conversation) -> Call:
    row = row_of(api)
    names = {part.name for message in conversation for part in message.parts if isinstance(part, ToolCallPart)}
    tools = tuple(Tool(name=name) for name in sorted(names) if re.fullmatch(r"[\w-]{1,64}", name, re.ASCII))
    model = ModelRow(id="acme:m", name=MODEL, provider=row.id)
    return Call(model=model, provider=row, base_url=row.base_url, conversation=conversation, tools=tools)


def as_real_image(event: Event) -> Event:
    """Return the event with real image data, so that decoders recognise its media type."""
    if isinstance(event, MediaDelta) and event.data and event.media_type.startswith("image/"):
        return msgspec.structs.replace(event, media_type="image/png", data=PNG)
    if isinstance(event, ProviderPart) and isinstance(event.data, dict) and event.data.get("result"):
        return msgspec.structs.replace(event, data={**event.data, "result": PNG})
    return event


def dense(text: str) -> str:
    """Return a text without whitespace: some APIs reject text of whitespace only, so adapters do not send it."""
    return "".join(text.split())


def answer_of(api: str, events: list[Event]) -> APIResponse:
    """Return the response as a client of the provider gets it: the opaque data has the provider's name."""
    decoder = find_adapter(api).decoder(call_of(api, Conversation.user("hi")))
    builder = ResponseBuilder()
    for frame in find_encoder(api).encode_stream(map(as_real_image, events)):
        builder.add_all(decoder.feed(frame))
    builder.add_all(decoder.close())
    assert decoder.error is None
    return builder.response()


def next_turn(answer: APIResponse) -> Conversation:
    conversation = Conversation.user("Hi").add(answer.content)
    results = [call for call in answer.tool_calls if call.arguments_error is None]
    for call in answer.tool_calls:
        conversation.tool_result(call.id, f"result of {call.id}")
    return conversation if results or answer.finish_reason == "pause" else conversation.user("And then?")


def spoken(conversation: Conversation) -> Message:
    return next((message for message in conversation if message.role == "assistant"), Message("assistant"))


@pytest.mark.parametrize(("made_by", "taken_by"), PAIRS, ids=str)
@given(data=st.data())
@SETTINGS
def test_the_next_turn_is_built_for_every_provider(made_by: str, taken_by: str, data: st.DataObject) -> None:
    answer = answer_of(made_by, data.draw(MIRRORS[made_by]))
    call = call_of(taken_by, next_turn(answer))
    adapter = find_adapter(taken_by)
    request = adapter.build_request(call)
    read = find_encoder(taken_by).parse_request(request.body, model=MODEL, is_streamed=True)
    again = spoken(read.conversation)
    if answer.content.refusal:  # which other APIs get as text, where it stands
        rest = iter(dense(again.completion))
        assert all(letter in rest for letter in dense(answer.completion))
    else:
        assert dense(answer.completion) in dense(again.completion)
    custom = any(each.custom for each in answer.tool_calls)
    if not custom:
        assert [each.name for each in again.tool_calls] == [each.name for each in answer.tool_calls]
        whole = [each.arguments for each in answer.tool_calls if isinstance(each.arguments, dict)]
        if len(whole) == len(answer.tool_calls):
            assert [each.arguments for each in again.tool_calls] == whole
    foreign = [part for part in answer.content.parts if isinstance(part, ProviderDataPart)]
    if made_by != taken_by and foreign:
        assert "provider_data_not_sent" in dropped_parts(call, adapter)


# Bedrock's native API has the format of each model's vendor; its own tests cover the opaque data.
@pytest.mark.parametrize("api", sorted(set(MIRRORS) - {"bedrock-invoke"}))
@given(data=st.data())
@settings(SETTINGS, max_examples=40)
def test_opaque_data_is_sent_back_to_its_provider(api: str, data: st.DataObject) -> None:
    answer = answer_of(api, data.draw(MIRRORS[api]))
    adapter = find_adapter(api)
    call = call_of(api, next_turn(answer))
    read = find_encoder(api).parse_request(adapter.build_request(call).body, model=MODEL, is_streamed=True)
    kinds = adapter.echoes - NOT_IN_MESSAGES
    sent = [
        part for part in answer.content.parts if isinstance(part, ProviderDataPart) and part.kind in kinds and part.data
    ]
    found = [part for part in spoken(read.conversation).parts if isinstance(part, ProviderDataPart)]
    assert [(part.kind, part.data) for part in found] == [(part.kind, part.data) for part in sent]
