"""Fields of the chunks of Chat Completions, as OpenAI and compatible hosts send them.

A plain response has the same fields as one chunk, with `message` in place of `delta`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from lm_deluge.events import Citation, FinishReason, TokenLogprob, TopLogprob
from lm_deluge.wire.tolerant_json import SkipReport, TolerantDecoder, convert_tolerantly

__all__ = [
    "FAILURES",
    "FINISH_REASONS",
    "Choice",
    "ChoiceDelta",
    "Chunk",
    "Function",
    "Logprobs",
    "PlainChunk",
    "ToolCall",
    "decode_plain",
    "decode_tolerantly",
    "decode_typed",
    "finish_word",
    "image_source",
    "read_logprobs",
    "read_source",
    "thought_signature",
]


class Function(msgspec.Struct, gc=False):
    """Name and arguments of a tool call, or pieces of them."""

    name: str | None = None
    arguments: Any = None


class Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _Google(msgspec.Struct, gc=False):
    thought_signature: str | None = None


class ExtraContent(msgspec.Struct, gc=False):
    """Google's own data. https://ai.google.dev/gemini-api/docs/thought-signatures, "OpenAI" (2026-11)."""

    google: _Google | None = None


class ToolCall(msgspec.Struct, gc=False):
    """A tool call, or a fragment of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra_content: ExtraContent | None = None


class Audio(msgspec.Struct, gc=False):
    id: str | None = None
    data: str | None = None
    transcript: str | None = None


class ChoiceDelta(msgspec.Struct, gc=False):
    """A piece of the message, or the whole message of a plain response."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    reasoning_text: str | None = None
    thinking: Any = None
    reasoning_details: list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    annotations: list[Any] | None = None
    audio: Audio | None = None
    images: list[Any] | None = None
    executed_tools: list[Any] | None = None
    extra_content: ExtraContent | None = None


class Logprobs(msgspec.Struct, gc=False):
    """Log probabilities; the last three fields are the form of OpenAI's older API of completions."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(msgspec.Struct, gc=False):
    """A candidate."""

    index: int | None = None
    delta: ChoiceDelta | None = None
    message: ChoiceDelta | None = None
    text: Any = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    usage: dict[str, Any] | None = None
    error: Any = None  # OpenRouter


class GroqExtra(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None


class BaseResp(msgspec.Struct, gc=False):
    status_code: Any = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk of a stream, or a plain response."""

    id: str | None = None
    model: str | None = None
    object: str | None = None
    type: str | None = None
    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    x_groq: GroqExtra | None = None
    error: Any = None
    detail: Any = None
    citations: list[Any] | None = None
    search_results: list[Any] | None = None
    service_tier: str | None = None
    base_resp: BaseResp | None = None  # MiniMax: an error unless its status is 0

    @property
    def is_error(self) -> bool:
        """Whether the chunk has an error beside the choices, or in place of them."""
        if self.error or self.detail or "error" in (self.object, self.type):
            return True
        return self.base_resp is not None and self.base_resp.status_code not in (None, 0, "0")


_DECODER = TolerantDecoder(Chunk)
decode_typed = _DECODER.decode_typed
decode_tolerantly = _DECODER.decode


class PlainDelta(msgspec.Struct, gc=False):
    content: Annotated[str, msgspec.Meta(min_length=1)] | list[Any]
    reasoning_content: None = None
    reasoning: None = None
    reasoning_text: None = None
    thinking: None = None
    reasoning_details: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    annotations: None = None
    audio: None = None
    images: None = None
    executed_tools: None = None
    extra_content: None = None


class PlainChoice(msgspec.Struct, gc=False):
    delta: PlainDelta
    index: Literal[0] = 0
    finish_reason: None = None
    stop_reason: None = None  # Mistral's name of it at Bedrock
    logprobs: None = None
    usage: None = None
    error: None = None


class PlainBaseResp(msgspec.Struct, gc=False):
    status_code: Literal[0] = 0


class PlainChunk(msgspec.Struct, gc=False):
    """A chunk with content, and at most usage and sources beside it: decoding fails if any other field has a value.

    Fast path: nearly all chunks are of this kind, and msgspec checks them without Python code.
    """

    choices: tuple[PlainChoice]
    id: str | None = None  # read to notice a wrong type, as the other path does
    model: str | None = None
    object: str | None = None
    usage: dict[str, Any] | None = None
    x_groq: None = None
    error: None = None
    detail: None = None
    citations: list[Any] | None = None
    search_results: list[Any] | None = None
    service_tier: str | None = None
    base_resp: PlainBaseResp | None = None


decode_plain = msgspec.json.Decoder(PlainChunk).decode

FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
    # Gemini's OpenAI endpoint: the call that the model wrote is malformed, or of a tool that the request does not have.
    "function_call_filter": "error",
    "malformed_function_call": "error",
    "unexpected_tool_call": "error",
}

# Finish reasons of responses that failed midway; `insufficient_system_resource` is DeepSeek's, in its documentation.
FAILURES = {"error", "insufficient_system_resource", "abort", "cancelled"}


def finish_word(reason: str) -> str:
    """Return the key of a finish reason in the tables. Gemini's OpenAI endpoint sends `content_filter: SAFETY`."""
    return reason.partition(":")[0].strip().lower()


def read_logprobs(found: Logprobs | None) -> tuple[tuple[TokenLogprob, ...], tuple[TokenLogprob, ...]]:
    """Return the log probabilities of the text and of the refusal."""
    if found is None:
        return (), ()
    return tuple(found.content or _old_logprobs(found)), tuple(found.refusal or ())


def _old_logprobs(found: Logprobs) -> list[TokenLogprob]:
    """Return log probabilities in the form of the older API, as llama-cpp-python and Together send them.

    A token without a value, the first one of an answer for example, is left out.
    """
    tops = found.top_logprobs or []
    made = []
    for position, (token, logprob) in enumerate(zip(found.tokens or (), found.token_logprobs or (), strict=False)):
        if logprob is not None:
            others = (tops[position] if position < len(tops) else None) or {}
            made.append(TokenLogprob(token, logprob, None, tuple(TopLogprob(*item) for item in others.items())))
    return made


def thought_signature(extra: ExtraContent | None) -> str | None:
    """Return Google's signature in the extra content of a call or message."""
    return (extra.google.thought_signature or None) if extra is not None and extra.google is not None else None


class _ImageURL(msgspec.Struct, gc=False):
    url: str = ""


class _Image(msgspec.Struct, gc=False):
    image_url: _ImageURL | None = None


def image_source(image: Any, report: SkipReport) -> str:
    """Return the URL of a generated image, empty if it has none."""
    found = convert_tolerantly(image, _Image, report)
    return found.image_url.url if found is not None and found.image_url is not None else ""


class _Source(msgspec.Struct, gc=False):
    url: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


def read_source(source: Any, report: SkipReport) -> Citation | None:
    """Return a cited source, which is a URL, an annotation of OpenAI, or an object with these fields."""
    raw = {"url": source} if isinstance(source, str) else source
    if not isinstance(raw, dict):
        report.skip_value(raw)
        return None
    inner = raw.get("url_citation") if isinstance(raw.get("url_citation"), dict) else raw
    found = convert_tolerantly(inner, _Source, report) or _Source()
    return Citation(found.url, found.title, found.start_index, found.end_index, raw) if found.url else None
