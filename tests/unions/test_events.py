"""Each place that handles events by type has a decision for each type of `Event`: see `places`."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast, get_args

import msgspec
import pytest

from lm_deluge.adapters.openai_chat.think_tags import TagSplitter
from lm_deluge.api_requests import response_stream
from lm_deluge.cli.render import stream_view
from lm_deluge.client.stream import Stream, texts_of
from lm_deluge.dispatch.attempts.spliced_response import SplicedResponse
from lm_deluge.dispatch.cache.entry import decode_answer, encode_answer
from lm_deluge.encoders.catalog import encoder_names, find_encoder
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.simulator.faults.catalog import FAULTS, Fault
from lm_deluge.simulator.plan import AnswerContext
from lm_deluge.ui import Protocol, frame_encoder
from lm_deluge.usage import Usage
from unions.places import ARGUMENTS, OPAQUE, Example, Place, Unheard, because, call_of, verdict

START, TEXT, END = ResponseStarted("id-1", "m-1"), TextDelta("some text"), ResponseFinished("stop")
CALL = ToolCallStarted(0, "call-1", "f")
CALLED = ToolCallFinished(0, "call-1", "f", ARGUMENTS, {"city": "Rome"})
EVENT_EXAMPLES: dict[type, tuple[Example, ...]] = {
    ResponseStarted: (Example((), ResponseStarted("id-9", "m-9"), (TEXT, END)),),
    TextDelta: (Example((START,), TEXT, (END,)),),
    ReasoningDelta: (Example((START,), ReasoningDelta("a thought"), (END,)),),
    RefusalDelta: (Example((START,), RefusalDelta("a refusal"), (END,)),),
    ToolCallStarted: (Example((START,), CALL, (END,)),),
    ToolCallDelta: (Example((START, CALL), ToolCallDelta(0, ARGUMENTS), (END,)),),
    ToolCallFinished: (
        Example((START, CALL), CALLED, (END,)),
        Example((START, CALL, ToolCallDelta(0, ARGUMENTS)), CALLED, (END,)),
    ),
    Citation: (Example((START, TEXT), Citation("https://a.test", "A", 0, 4, {"url": "https://a.test"}), (END,)),),
    MediaDelta: (
        Example((START,), MediaDelta("image/png", "iVBORw0KGgo="), (END,)),
        Example((START,), MediaDelta("audio/wav", "UklGRg==", id="audio-1", transcript="la"), (END,)),
    ),
    ProviderPart: tuple(
        Example((START, ReasoningDelta("a thought")), ProviderPart("p", kind, data), (END,))
        for kind, data in OPAQUE.items()
    ),
    UsageReported: (Example((START, TEXT), UsageReported(Usage(input_tokens=11, output_tokens=7)), (END,)),),
    Attempt: (Example((START, TEXT), Attempt(2, "ServerError", "failed", 0.5, "m-2"), (TEXT, END)),),
    ToolProgress: (Example((START, CALL, CALLED), ToolProgress("call-1", "f", 0.5), (END,)),),
    ToolResult: (Example((START, CALL, CALLED), ToolResult("call-1", "f", "21"), (END,)),),
    RoundStarted: (Example((START, TEXT), RoundStarted(2, "id-2", "m-2"), (TEXT, END)),),
    ResponseFinished: (Example((START, TEXT), END),),
}


def replayed(events: Sequence[Any]) -> Any:
    """Return a call that delivers events in one batch, and a further one for each round, for the views of a stream."""
    batches: list[list[Event]] = [[]]
    for event in events:
        if isinstance(event, RoundStarted):
            batches.append([])
        batches[-1].append(event)
    batches.append([])

    async def next_batch() -> list[Event]:
        return batches.pop(0)

    async def close() -> None:
        pass

    return SimpleNamespace(next_batch=next_batch, close=close, abort=lambda: None, response=APIResponse)


def build(events: tuple[Any, ...]) -> APIResponse:
    builder = ResponseBuilder()
    builder.add_all(events)
    return builder.response()


def print_awaited(events: tuple[Any, ...]) -> str:
    async def wait() -> str:
        file = io.StringIO()
        await Stream(replayed(events), echo=file)
        return file.getvalue()

    return asyncio.run(wait())


class Recorder:
    """An output that records everything written to it."""

    has_status = False

    def __init__(self) -> None:
        self.written: list[str] = []
        self.write = self.written.append

    def write_reasoning(self, text: str) -> None:
        self.written.append(f"<{text}>")

    def end(self) -> None:
        pass


class ReplayedStream:
    """A stream that delivers events in one batch, for the view of the command line."""

    def __init__(self, events: Sequence[Any]) -> None:
        self.next_batch = replayed(events).next_batch
        self.response = APIResponse()

    async def __aenter__(self) -> ReplayedStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass


def show_on_terminal(events: tuple[Any, ...]) -> str:
    output = Recorder()
    asyncio.run(stream_view.show_stream(cast("Any", ReplayedStream(events)), cast("Any", output)))
    return "".join(output.written)


def through_the_cache(events: tuple[Any, ...]) -> Any:
    value = encode_answer(events, APIResponse(model_internal="m"), call_of([Message.user("q")]))
    return None if value is None else decode_answer(value)


def special_to_tag_splitter(events: tuple[Any, ...]) -> list[type]:
    """Return the types that are split, or that leave an incomplete tag in the buffer; others release it."""
    special = []
    for event in events:
        splitter = TagSplitter()
        splitter.split([TextDelta("<thi")])
        if splitter.split([event]) != [TextDelta("<thi"), event]:
            special.append(type(event))
    return special


def shown_as(protocol: Protocol) -> Callable[[tuple[Any, ...]], Any]:
    """Return what the frames of a user interface's protocol are, and how the answer ends in them."""

    def show(events: tuple[Any, ...]) -> Any:
        options: dict[str, Any] = {} if protocol == "text" else {"message_id": "m-1"}
        encoder = frame_encoder(protocol, **options | ({"created": 1} if protocol == "openai-chat" else {}))
        try:
            written = encoder.start() + encoder.frames(events) + encoder.end()
        except ConfigurationError as error:
            raise TypeError from error
        return written, encoder.outcome and encoder.outcome.kind

    return show


def among(types: Callable[[], Any]) -> Callable[[tuple[Any, ...]], list[type]]:
    """Return an observer of a table: it keeps the types that the table has."""
    return lambda events: [type(event) for event in events if type(event) in types()]


def splice_table() -> Any:
    attempt = SimpleNamespace(stream=SimpleNamespace(builder=ResponseBuilder()))
    return SplicedResponse(cast("Any", None), cast("Any", attempt), cast("Any", None))._joins


def with_model(model: str, encode: Callable[[tuple[Any, ...]], Any]) -> Callable[[tuple[Any, ...]], Any]:
    """Return an observer that encodes answers of another model."""

    def observe(events: tuple[Any, ...]) -> Any:
        start = ResponseStarted("id-1", model)
        return encode((start, *(event for event in events if not isinstance(event, ResponseStarted))))

    return observe


def streamed_by(api: str) -> Callable[[tuple[Any, ...]], bytes]:
    return lambda events: b"".join(find_encoder(api).encode_stream(events))


def encoded_by(api: str) -> Callable[[tuple[Any, ...]], bytes]:
    return lambda events: find_encoder(api).encode_response(events)


def edited_by(name: str) -> Callable[[tuple[Any, ...]], list[Event]]:
    request = ParsedRequest(model="m", conversation=Conversation.user("q"), is_streamed=True)
    site = AnswerContext(find_encoder("openai-chat"), request, 0, "/v1/chat/completions", 0.0)
    return lambda events: Fault(name).edit_events(list(events), site)


# Lists of what each place ignores

CALLS = (ToolCallStarted, ToolCallDelta, ToolCallFinished)
EDGES = (ResponseStarted, ResponseFinished)
RESULTS = (ToolProgress, ToolResult)
NO_TEXT = (*CALLS, Citation, MediaDelta, ProviderPart, UsageReported, Attempt, *RESULTS, *EDGES)


NO_RESULTS = because("results of the program's own tools are no part of an answer", *RESULTS)
NO_ATTEMPTS = because("no wire API has a frame that takes back what was sent", Attempt)
NO_ATTEMPTS |= because("no wire API has an answer of several rounds", RoundStarted)
NO_MEDIA = because("answers of this API have no images or audio", MediaDelta)
TEXT_MODEL = because(
    "the answers of this family of models are plain text", ReasoningDelta, *CALLS, Citation, MediaDelta
)
TEXT_MODEL |= because("its answers have no opaque data", ProviderPart) | because(
    "its answers have no id", ResponseStarted
)
WHOLE_CALLS = because("the API sends a call as a whole, which ToolCallFinished has", ToolCallStarted, ToolCallDelta)
PLAIN_OLLAMA = because("the API has neither sources nor opaque data", Citation, ProviderPart)
NO_ID = because("answers of this API have neither id nor model", ResponseStarted)
IGNORED_BY_ENCODERS: dict[str, tuple[dict[type, str], dict[type, str]]] = {  # streamed, plain
    "anthropic-messages": (NO_MEDIA | NO_ATTEMPTS, NO_MEDIA | NO_ATTEMPTS),
    "bedrock-converse": (NO_ID | NO_ATTEMPTS, NO_ID),
    "bedrock-invoke": (NO_ATTEMPTS, {}),
    "cohere-v2": (NO_MEDIA | NO_ATTEMPTS, NO_MEDIA),
    "gemini-generate": (WHOLE_CALLS | NO_ATTEMPTS, WHOLE_CALLS | NO_ATTEMPTS),
    "gemini-interactions": (NO_ATTEMPTS, NO_ATTEMPTS),
    "mistral-chat": (NO_ATTEMPTS, {}),
    "ollama-chat": (PLAIN_OLLAMA | NO_ATTEMPTS, PLAIN_OLLAMA),
    "openai-chat": (NO_ATTEMPTS, {}),
    "openai-responses": (NO_ATTEMPTS, because("arguments are in ToolCallFinished", ToolCallDelta) | NO_ATTEMPTS),
}
NEW_CONTENT = because("the fault replaces the content", TextDelta, ReasoningDelta, RefusalDelta, *CALLS, Citation)
NEW_CONTENT |= because("the fault replaces the content", MediaDelta, ProviderPart, Attempt, ResponseFinished)
NEW_CONTENT |= because("the fault replaces the content", *RESULTS, RoundStarted)
ONLY_TEXT = {kind: reason for kind, reason in NEW_CONTENT.items() if kind is not TextDelta}
IGNORED_BY_FAULTS: dict[str, dict[type, str]] = {
    "missing_usage": because("the fault removes it", UsageReported),
    "empty_answer": NEW_CONTENT,
    "content_filter_mid": ONLY_TEXT,
    "refusal_mid": ONLY_TEXT,
    "bad_tool_json": NEW_CONTENT,
    "interleaved_tool_calls": NEW_CONTENT,
    "tool_calls_without_ids": NEW_CONTENT,
    "tool_calls_without_index": NEW_CONTENT,
    "tool_calls_repeated_ids": NEW_CONTENT,
    "tool_call_index_gaps": NEW_CONTENT,
    "tool_name_in_pieces": NEW_CONTENT,
}
UI_OPAQUE = because("opaque data of the provider stays on the server", ProviderPart)
UI_TEXT = because("not in the text", ResponseStarted, ReasoningDelta, *CALLS, Citation, MediaDelta, UsageReported)
IGNORED_BY_PROTOCOLS: dict[Protocol, dict[type, str]] = {
    "vercel-ui": UI_OPAQUE,
    "ag-ui": UI_OPAQUE,
    "openai-chat": UI_OPAQUE | because("the API has no progress of tools", ToolProgress),
    "text": UI_OPAQUE | UI_TEXT | NO_RESULTS,
}
CLIENTS_OWN = because("the client's own event, never in a response body", Attempt, *RESULTS, RoundStarted)
DELTAS = (TextDelta, ReasoningDelta, RefusalDelta, *CALLS, Citation, MediaDelta, ProviderPart)
NO_WORD = because("the status line keeps its word", *CALLS, Citation, ProviderPart, UsageReported, Attempt, *EDGES)
EVENT_PLACES = [
    Place("ResponseBuilder", build, NO_RESULTS),
    Place("the JSON of events", lambda events: [msgspec.json.encode(each) for each in events], {}),
    Place("the response cache", through_the_cache, {}),
    Place(
        "texts_of",
        lambda events: texts_of(list(events)),
        because("no text", ReasoningDelta, RefusalDelta, RoundStarted, *NO_TEXT),
    ),
    Place("an awaited Stream", print_awaited, because("prints the answer only", ReasoningDelta, *NO_TEXT)),
    Place("show_stream", show_on_terminal, because("the end of the command reports it", RoundStarted, *NO_TEXT)),
    Place("the status line", among(lambda: stream_view._WORDS), NO_WORD),
    Place(
        "the first-token timeout",
        among(lambda: response_stream._QUIET),
        because("counts as a token", *DELTAS) | CLIENTS_OWN,
    ),
    Place(
        "TagSplitter",
        special_to_tag_splitter,
        because("ends the search for a tag, and is passed on", *DELTAS[1:], ResponseFinished) | CLIENTS_OWN,
    ),
    Place(
        "SplicedResponse",
        among(splice_table),
        because("passed on: the builder keeps the first one", ResponseStarted)
        | because("passed on: does not depend on the answer's text", ReasoningDelta, ProviderPart)
        | because("passed on: ToolCallStarted was checked", ToolCallDelta, ToolCallFinished)
        | CLIENTS_OWN,
    ),
    *(
        Place(f"{name}, streamed", streamed_by(name), IGNORED_BY_ENCODERS[name][0] | NO_RESULTS)
        for name in encoder_names()
    ),
    *(Place(f"{name}, plain", encoded_by(name), IGNORED_BY_ENCODERS[name][1] | NO_RESULTS) for name in encoder_names()),
    *(
        Place(f"bedrock-invoke, streamed, {model}", with_model(model, streamed_by("bedrock-invoke")), ignored)
        for model in ("meta.llama3", "amazon.titan-text", "cohere.command-text")
        for ignored in [TEXT_MODEL | NO_ATTEMPTS | NO_RESULTS]
    ),
    Place(
        "bedrock-invoke, plain, meta.llama3",
        with_model("meta.llama3", encoded_by("bedrock-invoke")),
        TEXT_MODEL | NO_RESULTS,
    ),
    *(Place(f"frames of {name}", shown_as(name), ignored) for name, ignored in IGNORED_BY_PROTOCOLS.items()),
    *(Place(f"fault {name}", edited_by(name), IGNORED_BY_FAULTS.get(name, {})) for name in FAULTS),
]


@pytest.mark.parametrize("place", EVENT_PLACES, ids=lambda place: place.name)
def test_each_place_knows_each_event(place: Place) -> None:
    faults = [verdict(place, kind, EVENT_EXAMPLES) for kind in get_args(Event)]
    assert [fault for fault in faults if fault] == []
    assert set(place.ignored) <= set(get_args(Event))


def test_all_encoders_and_faults_are_here() -> None:
    assert set(IGNORED_BY_ENCODERS) == set(encoder_names())
    assert set(IGNORED_BY_FAULTS) <= set(FAULTS)


# Places that need no change for a new type of event: they encode the union, or pass on what they do not edit.
OPEN_PLACES = {
    "the JSON of events",
    "the response cache",
    *(f"fault {name}" for name in FAULTS if name not in IGNORED_BY_FAULTS),
}
OPEN_PLACES |= {"fault missing_usage"}


@pytest.mark.parametrize("place", EVENT_PLACES, ids=lambda place: place.name)
def test_a_new_event_is_reported(place: Place) -> None:
    found = verdict(place, Unheard, {Unheard: (Example((START, TEXT), Unheard(), (END,)),)})
    assert bool(found) is not (place.name in OPEN_PLACES)
    assert verdict(place, Unheard, EVENT_EXAMPLES) == "no example of Unheard"
