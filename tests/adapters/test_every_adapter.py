"""Properties of every adapter, for any input."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cuts
import recordings
from grammar import check_grammar
from lm_deluge import errors
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import APIError, DelugeError, TruncatedError
from lm_deluge.events import Event, ResponseStarted, TextDelta
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.tool import Tool
from lm_deluge.simulator import Script
from lm_deluge.testing.decode import decode_body, decode_events
from recordings import IS_SOAK

APIS = adapter_names()
EXAMPLES = 2_000 if IS_SOAK else 60
SETTINGS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCRIPT = Script(
    text="Hé, 世界 and more", reasoning="I think.", tool_calls=[("weather", {"city": "Roma"}), ("time", {"zone": "é"})]
)


def scripted(api: str) -> list[Event]:
    request = ParsedRequest(model="some-model", conversation=Conversation.user("Hi"))
    return SCRIPT.play(request, response_id=f"{find_encoder(api).id_prefix}1")


def body_of(api: str) -> bytes:
    return b"".join(find_encoder(api).encode_stream(scripted(api)))


def bodies_of(api: str) -> list[bytes]:
    """Return an encoded body, and some recorded bodies if there are recordings."""
    names = recordings.names(api)
    return [body_of(api), *(recordings.load(api, name).body for name in names[:: max(1, len(names) // 6)])]


def a_call(api: str, conversation: Conversation, **fields: Any) -> Call:
    row = ProviderRow(id="acme", otel_name="acme", adapter=api, base_url="https://acme.test")
    model = ModelRow(id="acme:m", name="m-1", provider=row.id)
    return Call(model=model, provider=row, base_url=row.base_url, conversation=conversation, **fields)


def outcome(api: str, chunks: list[bytes]) -> tuple[list[Event], str | None]:
    """Return the events, and the text of the error or None. Exceptions other than `DelugeError` are not caught."""
    events: list[Event] = []
    try:
        for event in decode_events(api, chunks):
            events.append(event)  # noqa: PERF402 - events before the error are kept
    except DelugeError as error:
        check_grammar(events, is_complete=False)
        return events, f"{type(error).__name__}: {error}"
    check_grammar(events)
    return events, None


every_api = pytest.mark.parametrize("api", APIS)


@every_api
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
@SETTINGS
def test_random_bytes_are_deluge_errors(api: str, noise: bytes, positions: list[int]) -> None:
    assert outcome(api, cuts.at(noise, positions)) == outcome(api, [noise])


@every_api
@given(data=st.data(), dice=st.randoms(use_true_random=False))
@SETTINGS
def test_damaged_streams_are_read_or_refused_alike_however_they_are_cut(
    api: str, data: st.DataObject, dice: random.Random
) -> None:
    damaged = bytearray(data.draw(st.sampled_from(bodies_of(api)))[:8_000])
    for _ in range(dice.randrange(1, 8)):
        place = dice.randrange(len(damaged))
        damage = dice.choice([b"", b"\0", b"\xff", b"\r", b"\n", b'"', b"{", b"}", b"[", b"9", b"null", b"data: "])
        damaged[place : place + dice.randrange(3)] = damage
    assert outcome(api, cuts.at_random(bytes(damaged), dice.randrange(100), 50)) == outcome(api, [bytes(damaged)])


_ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return (
        [at, *(path for key, item in inner for path in paths_of(item, (*at, key)))]
        if at
        else [path for key, item in inner for path in paths_of(item, (key,))]
    )


def with_odd_value(frame: bytes, draw: Any) -> bytes:
    """Return the frame with one value of its JSON replaced."""
    head, sep, tail = frame.partition(b"data: ")
    payload = (tail if sep else frame).strip()
    if not payload.startswith(b"{"):
        return frame
    value = json.loads(payload)
    paths = paths_of(value)
    if not paths:
        return frame
    *way, last = draw(st.sampled_from(paths))
    target = value
    for key in way:
        target = target[key]
    target[last] = draw(_ODD)
    odd = json.dumps(value).encode()
    return head + sep + odd + b"\n\n" if sep else odd + b"\n"


@pytest.mark.parametrize(
    "api", [api for api in APIS if not find_encoder(api).stream_type.startswith("application/vnd")]
)
@given(data=st.data())
@SETTINGS
def test_frames_with_values_of_any_shape_are_events_or_deluge_errors(api: str, data: st.DataObject) -> None:
    frames = list(find_encoder(api).encode_stream(scripted(api)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(frames) - 1))
        frames[place] = with_odd_value(frames[place], data.draw)
    body = b"".join(frames)
    assert outcome(api, cuts.every(body, 7)) == outcome(api, [body])


@every_api
def test_every_cut_of_a_rich_answer(api: str) -> None:
    body = body_of(api)
    whole, error = outcome(api, [body])
    assert error is None
    complete = []
    for position in range(len(body)):
        try:
            decode_body(api, body[:position])
        except TruncatedError:
            complete.append(False)
        else:
            complete.append(True)
        events = outcome(api, [body[:position]])[0]
        read = [event for event in events if isinstance(event, TextDelta)]
        assert read == [event for event in whole if isinstance(event, TextDelta)][: len(read)]
    assert complete == sorted(complete)
    assert not complete[len(body) // 2]


@pytest.mark.parametrize("api", [api for api in APIS if find_encoder(api).is_sse])
def test_unknown_event_types_and_keep_alives_are_ignored(api: str) -> None:
    unknown = (
        b'event: zz.new\nid: 7\ndata: {"type": "zz.new", "payload": [1]}\n\n: ping\n\nevent: heartbeat\ndata: {}\n\n'
    )
    frames = list(find_encoder(api).encode_stream(scripted(api)))
    body = unknown + b"".join(frame + unknown for frame in frames)
    assert outcome(api, [body]) == outcome(api, frames)


KINDS: list[tuple[type[APIError], int]] = [
    (errors.BadRequestError, 400),
    (errors.AuthenticationError, 401),
    (errors.PermissionDeniedError, 403),
    (errors.NotFoundError, 404),
    (errors.RateLimitError, 429),
    (errors.ServerError, 500),
    (errors.OverloadedError, 503),
]


@every_api
@pytest.mark.parametrize(("kind", "status"), KINDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_an_error_is_written_and_read_as_the_same_class(api: str, kind: type[APIError], status: int) -> None:
    sent = kind("The words of the provider.", status_code=status)
    error = find_adapter(api).classify_error(status, {}, find_encoder(api).encode_error(sent))
    assert type(error) is kind
    assert error.status_code == status
    assert "The words of the provider." in error.message


@every_api
@pytest.mark.parametrize("kind", [errors.RateLimitError, errors.OverloadedError, errors.ServerError])
def test_an_error_in_the_stream_is_the_error_of_the_same_class(api: str, kind: type[APIError]) -> None:
    encoder = find_encoder(api)
    partial = [ResponseStarted("1", "m"), TextDelta("Half an ans")]
    tail = encoder.encode_stream_error(kind("The words of the provider.", status_code=None))
    with pytest.raises(kind) as caught:
        decode_body(api, [*encoder.encode_stream(partial), tail])
    assert type(caught.value) is kind
    assert caught.value.partial is not None
    assert caught.value.partial.completion == "Half an ans"
    assert "The words of the provider." in caught.value.message


STATUSES = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.QuotaExceededError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.ServerError,
    413: errors.RequestTooLargeError,
    422: errors.BadRequestError,
    429: errors.RateLimitError,
    500: errors.ServerError,
    503: errors.OverloadedError,
    529: errors.OverloadedError,
}


@every_api
@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
@pytest.mark.parametrize("body", [b"", b"{}", b'{"error": {"type": "?"}}', b"<html>", b"[]", b"\xff", b"null"])
def test_the_status_decides_first(api: str, status: int, kind: type[APIError], body: bytes) -> None:
    error = find_adapter(api).classify_error(status, {}, body)
    assert type(error) is kind
    assert error.status_code == status


@every_api
@pytest.mark.parametrize("is_streamed", [True, False])
def test_build_request_is_deterministic_and_leaves_the_conversation_alone(api: str, *, is_streamed: bool) -> None:
    adapter = find_adapter(api)
    conversation = Conversation.system("s").user("u", image=b"\x89PNG\r\n\x1a\n").add(Message.assistant("a")).user("b")
    call = a_call(api, conversation, tools=(Tool(name="f"),), is_streamed=is_streamed)
    before = msgspec.json.encode(conversation.messages)
    first, second = adapter.build_request(call), adapter.build_request(call)
    assert (first.url, first.headers, first.body) == (second.url, second.headers, second.body)
    assert first.url.startswith("https://acme.test/")
    assert msgspec.json.encode(conversation.messages) == before
    assert isinstance(json.loads(first.body), dict)


@every_api
def test_extra_headers_and_body_win(api: str) -> None:
    call = a_call(
        api, Conversation.user("u"), extra_headers={"X-Own": "1", "Accept": "all"}, extra_body={"zz_own": [1]}
    )
    request = find_adapter(api).build_request(call)
    assert (request.headers["x-own"], request.headers["accept"]) == ("1", "all")
    assert json.loads(request.body)["zz_own"] == [1]


@every_api
def test_a_call_and_its_result_go_back_as_the_next_turn(api: str) -> None:
    answer = decode_body(api, body_of(api))
    first, second = answer.tool_calls
    conversation = Conversation.user("Hi").add(answer.content)
    conversation.tool_result(first.id, "sunny").tool_result(second.id, "noon")
    tools = (Tool(name="weather"), Tool(name="time"))
    request = find_adapter(api).build_request(a_call(api, conversation, tools=tools))
    again = find_encoder(api).parse_request(request.body, model="m-1", is_streamed=True).conversation
    results = [part for message in again for part in message.parts if hasattr(part, "tool_call_id")]
    calls = [call for message in again for call in message.tool_calls]
    assert [(call.name, call.arguments) for call in calls] == [("weather", {"city": "Roma"}), ("time", {"zone": "é"})]
    assert [part.content for part in results] == ["sunny", "noon"]
    if any(call.id for call in calls):
        assert [part.tool_call_id for part in results] == [call.id for call in calls]
