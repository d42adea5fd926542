"""HTTP errors of Bedrock, and fuzzed bodies: the decoders raise only subclasses of `DelugeError`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cuts
from grammar import check_grammar
from lm_deluge import errors
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.events import Event
from lm_deluge.testing.decode import decode_events
from samples.bedrock_bytes import chunk, event, exception

APIS = ["bedrock-converse", "bedrock-invoke"]


def classified(status: int, body: Any, **headers: str) -> APIError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = [find_adapter(api).classify_error(status, named, data) for api in APIS]
    assert type(found[0]) is type(found[1])
    return found[0]


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "ValidationException", errors.BadRequestError),
        (400, "ServiceQuotaExceededException", errors.QuotaExceededError),
        (403, "AccessDeniedException", errors.PermissionDeniedError),
        (403, "UnrecognizedClientException", errors.AuthenticationError),
        (403, "ExpiredTokenException", errors.AuthenticationError),
        (403, "InvalidSignatureException", errors.AuthenticationError),
        (404, "ResourceNotFoundException", errors.NotFoundError),
        (408, "ModelTimeoutException", errors.ServerError),
        (424, "ModelErrorException", errors.ServerError),
        (429, "ModelNotReadyException", errors.OverloadedError),
        (429, "ThrottlingException", errors.RateLimitError),
        (500, "InternalServerException", errors.ServerError),
        (503, "ServiceUnavailableException", errors.OverloadedError),
        (418, "NewException", errors.BadRequestError),
        (500, "NewException", errors.ServerError),
    ],
)
def test_the_name_decides(status: int, name: str, kind: type[APIError]) -> None:
    body = {"message": "What happened."}
    by_header = classified(status, body, x_amzn_errortype=f"{name}:http://internal.amazon.com/coral/x/")
    by_body = classified(status, {**body, "__type": f"com.amazon.coral.service#{name}"})
    for error in (by_header, by_body):
        assert type(error) is kind
        assert (error.status_code, error.code, error.message) == (status, name, "What happened.")


def test_without_a_name_the_status_decides() -> None:
    assert type(classified(429, {"message": "x"})) is errors.RateLimitError
    assert type(classified(403, {"Message": "Denied by policy"})) is errors.PermissionDeniedError
    assert type(classified(502, b"<title>Bad gateway</title>")) is errors.ServerError
    assert classified(403, {"Message": "Denied", "__type": "AccessDeniedException"}).message == "Denied"
    assert type(classified(400, b"[1]")) is errors.BadRequestError
    assert type(classified(400, {"message": 5, "__type": 7})) is errors.BadRequestError


def test_what_the_message_says() -> None:
    long = {"message": "Input is too long for requested model.", "__type": "ValidationException"}
    assert type(classified(400, long)) is errors.ContextLengthError
    assert classified(429, {"message": "x", "__type": "ThrottlingException"}, retry_after="7").retry_after_s == 7


def outcome(api: str, chunks: list[bytes]) -> tuple[list[Event], str | None]:
    """Return the events and the text of a `DelugeError`; other exceptions are not caught."""
    events: list[Event] = []
    try:
        for each in decode_events(api, chunks):
            events.append(each)  # noqa: PERF402 - events before the error must be kept
    except DelugeError as error:
        check_grammar(events, is_complete=False)
        return events, f"{type(error).__name__}: {error}"
    check_grammar(events)
    return events, None


_NAMES = st.sampled_from(
    [
        *("contentBlockIndex", "start", "delta", "text", "toolUse", "toolUseId", "name", "type", "input", "toolResult"),
        *("status", "content", "reasoningContent", "signature", "redactedContent", "citation", "image", "format"),
        *("source", "bytes", "stopReason", "usage", "inputTokens", "outputTokens", "output", "message", "error"),
        *("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"),
        *("outputText", "completionReason", "generation", "stop_reason", "outputs", "results", "choices", "completion"),
        *("is_finished", "finish_reason", "event_type", "tool_calls", "citations", "generations", "index", "object"),
        *("amazon-bedrock-invocationMetrics", "amazon-bedrock-guardrailAction", "location", "web", "url", "title"),
    ]
)
_WORDS = st.sampled_from(["server_tool_use", "end_turn", "INTERVENED", "stream-end", "chat.completion.chunk", "QUJD"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=10,
)
_EVENTS = st.sampled_from(
    ["messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "chunk"]
)
_FRAMES = st.one_of(
    st.builds(event, _EVENTS, _JSON),
    st.builds(chunk, _JSON),
    st.builds(chunk, st.dictionaries(_NAMES, _JSON, max_size=5)),
    st.builds(exception, st.sampled_from(["throttlingException", "x"]), _JSON),
    st.builds(event, _EVENTS, st.binary(max_size=9)),
    st.binary(max_size=4),
)
SETTINGS = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("api", APIS)
@given(frames=st.lists(_FRAMES, max_size=6), size=st.integers(1, 50))
@SETTINGS
def test_odd_frames_are_read_or_are_errors_of_ours(api: str, frames: list[bytes], size: int) -> None:
    body = b"".join(frames)
    assert outcome(api, cuts.every(body, size)) == outcome(api, [body])


@pytest.mark.parametrize("api", APIS)
@given(document=_JSON)
@SETTINGS
def test_odd_documents_are_read_or_are_errors_of_ours(api: str, document: Any) -> None:
    outcome(api, [json.dumps(document).encode()])


@pytest.mark.parametrize("api", APIS)
@given(noise=st.binary(max_size=200))
@SETTINGS
def test_random_bytes_are_errors_of_ours(api: str, noise: bytes) -> None:
    assert outcome(api, [noise])[1] is not None


@pytest.mark.parametrize("api", APIS)
def test_what_is_nested_too_deep_is_an_error_of_ours(api: str) -> None:
    deep = b'{"a":' * 5_000 + b"1" + b"}" * 5_000
    for body in (deep, event("contentBlockDelta", deep), chunk(deep), event("chunk", deep)):
        assert outcome(api, [body])[1] is not None
