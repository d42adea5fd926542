"""Each place that handles parts by type has a decision for each type of `Part`: see `places`."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest

from lm_deluge.adapters.capabilities import check_capabilities, dropped_parts
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.dispatch.attempts.continuation import find_obstacle
from lm_deluge.errors import ConfigurationError, InvalidPromptError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message, Role
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.response import APIResponse
from unions.places import ARGUMENTS, OPAQUE, Example, Place, Unheard, because, call_of, verdict

CALL_PART = ToolCallPart("call-1", "f", ARGUMENTS, {"city": "Rome"})
PNG = Media(media_type="image/png", data=b"\x89PNG\r\n\x1a\n")
PDF = Media(media_type="application/pdf", data=b"%PDF-1", filename="a.pdf")
PART_EXAMPLES: dict[type, tuple[Example, ...]] = {
    TextPart: (Example((), TextPart("more text")),),
    ReasoningPart: (Example((), ReasoningPart("a thought")),),
    RefusalPart: (Example((), RefusalPart("a refusal")),),
    ImagePart: (Example((), ImagePart(PNG)),),
    FilePart: (Example((), FilePart(PDF)),),
    AudioPart: (Example((), AudioPart(Media(media_type="audio/wav", data=b"RIFF\0\0\0\0WAVE"))),),
    ToolCallPart: (Example((), CALL_PART),),
    ToolResultPart: (Example((), ToolResultPart("call-1", "rain")),),
    ProviderDataPart: tuple(
        Example(before, ProviderDataPart("p", kind, data))
        for kind, data in OPAQUE.items()
        for before in ((), (ReasoningPart("a thought"),))
    ),
}
MEDIA = (ImagePart, FilePart, AudioPart)
NEVER_IN_ANSWERS = because("only in messages of the user or of a tool", FilePart, ToolResultPart)
# The parts that each adapter sends in messages of the user and of the assistant, beside text.
SENT: dict[tuple[str, str], tuple[tuple[type, ...], tuple[type, ...]]] = {
    ("anthropic-messages", "m"): (
        (ImagePart, FilePart, ProviderDataPart),
        (RefusalPart, ToolCallPart, ProviderDataPart),
    ),
    ("bedrock-converse", "m"): ((*MEDIA, ProviderDataPart), (ImagePart, FilePart, ToolCallPart, ProviderDataPart)),
    ("bedrock-invoke", "m"): (MEDIA, (RefusalPart, ToolCallPart, ProviderDataPart)),
    ("bedrock-invoke", "anthropic.claude"): (
        (ImagePart, FilePart, ProviderDataPart),
        (RefusalPart, ToolCallPart, ProviderDataPart),
    ),
    ("bedrock-invoke", "amazon.nova"): (
        (*MEDIA, ProviderDataPart),
        (ImagePart, FilePart, ToolCallPart, ProviderDataPart),
    ),
    ("bedrock-invoke", "meta.llama3"): ((), ()),
    ("cohere-v2", "m"): ((ImagePart,), (ReasoningPart, ToolCallPart, ProviderDataPart)),
    ("gemini-generate", "m"): (MEDIA, (ImagePart, ToolCallPart, ProviderDataPart)),
    ("gemini-interactions", "m"): (MEDIA, (ImagePart, ToolCallPart, ProviderDataPart)),
    ("mistral-chat", "m"): (MEDIA, (ReasoningPart, ToolCallPart, ProviderDataPart)),
    ("ollama-chat", "m"): ((ImagePart,), (ReasoningPart, ToolCallPart)),
    ("openai-chat", "m"): (MEDIA, (RefusalPart, ToolCallPart, ProviderDataPart)),
    ("openai-responses", "m"): ((ImagePart, FilePart, ProviderDataPart), (RefusalPart, ToolCallPart, ProviderDataPart)),
}
NOT_TEXT = (ReasoningPart, RefusalPart, *MEDIA, ToolCallPart, ToolResultPart, ProviderDataPart)


def results_of(message: Message) -> list[Message]:
    """Return the results of the calls of a message, without which the APIs reject it."""
    return [Message.tool_result(call.id, "sun") for call in message.tool_calls]


def request_with(api: str, model: str, role: Role, parts: tuple[Any, ...]) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the body of a request, None if it is refused, and the names of the parts that are not sent."""
    message = Message(role, (ToolResultPart("call-1", "sun") if role == "tool" else TextPart("some text"), *parts))
    user = Message.user("q")
    messages = {
        "system": [message, user],
        "user": [message],
        "assistant": [user, message, *results_of(message), Message.user("next")],
        "tool": [user, Message("assistant", (CALL_PART,)), message],
    }[role]
    call, adapter = call_of(messages, api=api, model=model), find_adapter(api)
    try:
        return adapter.build_request(call).body, dropped_parts(call, adapter)
    except ConfigurationError:
        return None, ()


def sent_by(api: str, model: str, role: Role) -> Callable[[tuple[Any, ...]], bytes | None]:
    """Return an observer of request bodies; parts that are refused or not sent do not change them."""

    def observe(parts: tuple[Any, ...]) -> bytes | None:
        body, _ = request_with(api, model, role, parts)
        return request_with(api, model, role, ())[0] if body is None else body

    return observe


def checked(parts: tuple[Any, ...]) -> str:
    able = {"image_input": False, "file_input": False, "audio_input": False}
    try:
        check_capabilities(call_of([Message("user", parts)], **able))
    except ConfigurationError as error:
        return str(error)
    return ""


def obstacle(parts: tuple[Any, ...]) -> str | None:
    answer = Message("assistant", (TextPart("some text"), *parts))
    return find_obstacle(call_of([Message.user("q")]), answer, has_citations=False)


def through_json(parts: tuple[Any, ...]) -> Message:
    data = APIResponse(content=Message("assistant", parts)).to_dict()
    return APIResponse.from_dict(json.loads(json.dumps(data))).content


def views(parts: tuple[Any, ...]) -> list[Any]:
    message = Message("assistant", parts)
    return [message.completion, message.thinking, message.refusal, message.tool_calls]


def not_sent(role: Role, sent: tuple[type, ...]) -> dict[type, str]:
    first = ToolResultPart if role == "tool" else TextPart
    others = (kind for kind in (TextPart, *NOT_TEXT) if kind not in (first, *sent))
    return because(f"the API has no such part in messages of the role {role}", *others)


def adapter_places() -> list[Place]:
    places = []
    for (api, model), (user, assistant) in SENT.items():
        opaque = (ProviderDataPart,) if api == "openai-responses" else ()
        system = (ProviderDataPart,) if "converse" in api or "nova" in model else opaque
        by_role: dict[Role, tuple[type, ...]] = {"system": system, "user": user, "assistant": assistant}
        if model != "meta.llama3":  # it has no tools at all
            by_role["tool"] = opaque
        places += [
            Place(f"{api}, {model}, {role}", sent_by(api, model, role), not_sent(role, sent))
            for role, sent in by_role.items()
        ]
    return places


def stored(parts: tuple[Part, ...]) -> Message:
    try:
        return Conversation.from_json(Conversation([Message("user", parts)]).to_json())[0]
    except InvalidPromptError as error:
        raise TypeError from error


def printed(parts: tuple[Part, ...]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as file:
        Conversation([Message("user", parts)]).print()
    return file.getvalue()


PART_PLACES = [
    *adapter_places(),
    Place("the JSON of responses", through_json, {}),
    Place("the JSON of conversations", stored, {}),
    Place("Conversation.print", printed, {}),
    Place("views of a message", views, because("in `parts` only", *MEDIA, ToolResultPart, ProviderDataPart)),
    Place(
        "text_length",
        lambda parts: Conversation([Message("user", parts)]).text_length(),
        because("no estimate of its tokens from its bytes", FilePart, AudioPart, ProviderDataPart),
    ),
    Place(
        "the check of a model's capabilities",
        checked,
        because("every model takes it, or its adapter refuses it", TextPart, ReasoningPart, RefusalPart, ToolCallPart)
        | because("every model takes it, or its adapter refuses it", ToolResultPart, ProviderDataPart),
    ),
    Place("find_obstacle", obstacle, because("can be continued", TextPart, ReasoningPart) | NEVER_IN_ANSWERS),
]


@pytest.mark.parametrize("place", PART_PLACES, ids=lambda place: place.name)
def test_each_place_knows_each_part(place: Place) -> None:
    faults = [verdict(place, kind, PART_EXAMPLES) for kind in get_args(Part)]
    assert [fault for fault in faults if fault] == []
    assert set(place.ignored) <= set(get_args(Part))


@pytest.mark.parametrize(("api", "model"), SENT)
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_no_part_is_dropped_silently(api: str, model: str, role: Role) -> None:
    """A part is sent, refused with an error, or reported by `dropped_parts`."""
    dropped = set()
    for kind in get_args(Part):
        for example in PART_EXAMPLES[kind]:
            without = request_with(api, model, role, example.before)
            if without[0] is not None and without == request_with(api, model, role, (*example.before, example.value)):
                dropped.add(kind)
    # Opaque data in a place where its API does not expect it, such as a signature without reasoning, is left out.
    assert dropped <= {ProviderDataPart}


def test_all_adapters_are_here() -> None:
    assert {api for api, _ in SENT} == set(adapter_names())


@pytest.mark.parametrize("place", PART_PLACES, ids=lambda place: place.name)
def test_a_new_part_is_reported(place: Place) -> None:
    assert verdict(place, Unheard, {Unheard: (Example((), Unheard()),)})
    assert verdict(place, Unheard, PART_EXAMPLES) == "no example of Unheard"
