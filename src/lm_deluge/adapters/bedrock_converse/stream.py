"""Convert the events of Converse and of Nova's native API, which has the same shapes.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from lm_deluge.adapters.bedrock_converse.errors import maybe_document_error, stream_error
from lm_deluge.adapters.bedrock_converse.usage import read_converse_usage
from lm_deluge.adapters.body_decoder import not_json
from lm_deluge.adapters.raw_usage import merge_usage
from lm_deluge.adapters.token_counts import add_usage
from lm_deluge.adapters.tool_call_fragments import parse_arguments
from lm_deluge.adapters.typed_payload import Handlers, TypedPayload
from lm_deluge.errors import ProtocolError
from lm_deluge.events import (
    Citation,
    Event,
    FinishReason,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    TextDelta,
)
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, convert_tolerantly

__all__ = ["REDACTED", "SERVER_TOOL", "SIGNATURE", "ConversePayload"]

# The kinds of opaque data, which are sent back on the next turn.
SIGNATURE = "reasoning_signature"  # after the reasoning that it signs
REDACTED = "redacted_reasoning"  # encrypted reasoning, base64
SERVER_TOOL = "server_tool"  # the complete block of a tool that Bedrock ran, or of its result

_SERVER_TOOL_USE = "server_tool_use"
_COUNTS = ("inputTokens", "outputTokens")


class _ToolUse(msgspec.Struct, gc=False):
    toolUseId: str | None = None  # noqa: N815 - the wire's name
    name: str | None = None
    type: str | None = None
    input: Any = None


class _ToolResult(msgspec.Struct, gc=False):
    toolUseId: str | None = None  # noqa: N815
    type: str | None = None
    status: str | None = None


class _ImageStart(msgspec.Struct, gc=False):
    format: str | None = None


class _StartFields(msgspec.Struct, gc=False):
    toolUse: _ToolUse | None = None  # noqa: N815
    toolResult: _ToolResult | None = None  # noqa: N815
    image: _ImageStart | None = None


class _BlockStart(msgspec.Struct, gc=False):
    contentBlockIndex: int | None = None  # noqa: N815
    start: _StartFields | None = None


class _Reasoning(msgspec.Struct, gc=False):
    text: str | None = None
    signature: str | None = None
    redactedContent: str | None = None  # noqa: N815


class _S3Location(msgspec.Struct, gc=False):
    uri: str | None = None


class _ImageSource(msgspec.Struct, gc=False):
    bytes: str | None = None
    s3Location: _S3Location | None = None  # noqa: N815


class _ImagePiece(msgspec.Struct, gc=False):
    format: str | None = None
    source: _ImageSource | None = None


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    toolUse: _ToolUse | None = None  # noqa: N815
    reasoningContent: _Reasoning | None = None  # noqa: N815
    citation: dict[str, Any] | None = None
    toolResult: list[Any] | None = None  # noqa: N815
    image: _ImagePiece | None = None


class _BlockDelta(msgspec.Struct, gc=False):
    contentBlockIndex: int | None = None  # noqa: N815
    delta: _Delta | None = None


class _BlockStop(msgspec.Struct, gc=False):
    contentBlockIndex: int | None = None  # noqa: N815


class _MessageStop(msgspec.Struct, gc=False):
    stopReason: str | None = None  # noqa: N815


class _Metadata(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None


class _NoFields(msgspec.Struct, gc=False):
    pass


class _Web(msgspec.Struct, gc=False):
    url: str | None = None


class _Location(msgspec.Struct, gc=False):
    web: _Web | None = None


class _Source(msgspec.Struct, gc=False):
    title: str | None = None
    location: _Location | None = None


class _Block:
    """The data of the open block that becomes events only at its end."""

    __slots__ = ("image", "redacted", "result", "server_call", "signature")

    def __init__(self) -> None:
        self.signature: list[str] = []
        self.redacted: list[str] = []
        self.image: list[str] | None = None
        self.server_call: tuple[dict[str, Any], list[str]] | None = None
        self.result: dict[str, Any] | None = None


class _Failure(msgspec.Struct, gc=False):
    error: Any = None


class ConversePayload(TypedPayload):
    """The state machine of one response. Blocks are not interleaved, and may lack their start or their stop.

    The response is complete with its stop reason, and finished with the usage after it. Some hosts send the usage
    first, or other metadata without usage.
    """

    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "tool_calls",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "guardrail_intervened": "content_filter",
        "content_filtered": "content_filter",
        "malformed_model_output": "error",
        "malformed_tool_use": "error",
        "refusal": "refusal",
        "pause_turn": "pause",
    }

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._block = _Block()
        self._image_type = "image/*"
        self._key: int | None = None  # index of the open block
        self._usage: dict[str, Any] | None = None
        self._has_metadata = False

    def handle_named(self, name: str, value: Any, events: list[Event]) -> bool:
        """Handle one event given by name and value; return whether the name is known."""
        method = self._named.get(name)
        if method is None or self.is_finished:
            self.ignored += 1
            return method is not None
        kind, handle = method
        found = convert_tolerantly(value, kind, self)
        if found is not None:
            handle(self, found, events)
        return True

    def handle_wrapped(self, data: bytes, events: list[Event]) -> None:
        """Handle a chunk of Nova's native API: an object whose only field is an event.

        Raises:
            ProtocolError: The data is not JSON and the response is not complete.
        """
        try:
            chunk = None if self.is_finished else _WRAPPED.decode(data, self)
        except NotJSONError:
            if not self.is_complete:
                raise not_json(ServerSentEvent(data)) from None
            chunk = None
        is_known = False
        for name, (_, handle) in self._named.items() if chunk is not None else ():
            value = getattr(chunk, name)
            if value is not None:
                is_known = True
                handle(self, value, events)
        self.ignored += not is_known

    def read_document(self, body: bytes, events: list[Event]) -> None:
        """Handle a response that is not streamed.

        Raises:
            ProtocolError: The body is not a Converse response.
            APIError: The body is an error document.
        """
        try:
            document = _DOCUMENTS.decode(body, self)
        except NotJSONError:
            raise not_json(ServerSentEvent(body)) from None
        content = document.output.message.content if document and document.output and document.output.message else None
        if document is None or document.stopReason is None or content is None:
            failure = maybe_document_error(body)
            if failure is not None:
                raise failure
            raise ProtocolError(
                "the response is JSON, but not a Converse response", reason="order", excerpt=body, billed="maybe"
            )
        self.start(events)
        for index, block in enumerate(self.objects_of(content)):
            self._add_block(index, block, events)
        self._add_metadata(_Metadata(document.usage), events)
        self._stop(_MessageStop(document.stopReason), events)
        if not self.is_finished:
            self.end(events)

    def _add_block(self, index: int, block: dict[str, Any], events: list[Event]) -> None:
        """Handle a complete block through the same methods as the events of a stream."""
        for name, value in block.items():
            pieces = _PIECES.get(name)
            if pieces is None:
                self.ignored += 1
                continue
            if name != "text" and not isinstance(value, dict):
                self.skip_value(value)
                continue
            start, deltas = pieces(self, value)
            if start is not None:
                self.handle_named("contentBlockStart", {"contentBlockIndex": index, "start": {name: start}}, events)
            for delta in deltas:
                self.handle_named("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}, events)
        self._stop_block(_BlockStop(index), events)

    def _begin(self, value: _NoFields, events: list[Event]) -> None:
        self.start(events)

    def _start_block(self, value: _BlockStart, events: list[Event]) -> None:
        self.start(events)
        self._enter(value.contentBlockIndex, events)
        start = value.start or _StartFields()
        call = start.toolUse
        if call is not None and call.type == _SERVER_TOOL_USE:
            fields = {"toolUseId": call.toolUseId, "name": call.name, "type": call.type}
            self._block.server_call = fields, []
        elif call is not None:
            self.calls.start(events, value.contentBlockIndex, call.toolUseId or "", call.name or "")
        if start.toolResult is not None:
            fields = {name: getattr(start.toolResult, name) for name in ("toolUseId", "type", "status")}
            self._block.result = {name: field for name, field in fields.items() if field is not None}
            self._block.result["content"] = []
        if start.image is not None:
            self._block.image = []
            self._image_type = f"image/{start.image.format or '*'}"

    def _add_delta(self, value: _BlockDelta, events: list[Event]) -> None:
        delta = value.delta
        if delta is None:
            self.ignored += 1
            return
        if not self._is_started:
            self.start(events)
        if value.contentBlockIndex != self._key:
            self._enter(value.contentBlockIndex, events)
        if delta.text:
            events.append(TextDelta(delta.text))
            return
        if delta.toolUse is not None:
            self._add_arguments(value.contentBlockIndex, delta.toolUse.input, events)
        if delta.reasoningContent is not None:
            self._add_reasoning(delta.reasoningContent, events)
        if delta.citation is not None:
            events.append(self._citation(delta.citation))
        if delta.toolResult is not None and self._block.result is not None:
            self._block.result["content"] += delta.toolResult
        if delta.image is not None:
            self._add_image(delta.image, events)

    def _add_arguments(self, key: int | None, piece: Any, events: list[Event]) -> None:
        if piece is None:
            return
        text = piece if isinstance(piece, str) else msgspec.json.encode(piece).decode()
        if self._block.server_call is not None:
            self._block.server_call[1].append(text)
        else:
            self.calls.add(events, key, text)

    def _add_reasoning(self, piece: _Reasoning, events: list[Event]) -> None:
        if piece.text:
            events.append(ReasoningDelta(piece.text))
        if piece.signature:
            self._block.signature.append(piece.signature)
        if piece.redactedContent:
            self._block.redacted.append(piece.redactedContent)

    def _add_image(self, piece: _ImagePiece, events: list[Event]) -> None:
        source = piece.source or _ImageSource()
        if source.s3Location is not None and source.s3Location.uri:
            events.append(MediaDelta(self._image_type, url=source.s3Location.uri))
        elif source.bytes:
            self._block.image = self._block.image or []
            self._block.image.append(source.bytes)
        else:
            self.ignored += 1  # the image failed; the model describes the failure in text

    def _enter(self, key: int | None, events: list[Event]) -> None:
        """Open a block; end the previous block if its stop is missing."""
        if key != self._key:
            self._end_block(events)
            self._key = key

    def _stop_block(self, value: _BlockStop, events: list[Event]) -> None:
        key = self._key if value.contentBlockIndex is None else value.contentBlockIndex
        self._end_block(events)
        self.calls.finish(events, key)

    def _end_block(self, events: list[Event]) -> None:
        """Append the events that are only known at the end of the block, mostly opaque data."""
        block, self._block = self._block, _Block()
        self._key = None
        if block.signature:
            events.append(ProviderPart(self.provider, SIGNATURE, "".join(block.signature)))
        if block.redacted:
            events.append(ProviderPart(self.provider, REDACTED, _joined_base64(block.redacted)))
        if block.image:
            events.append(MediaDelta(self._image_type, _joined_base64(block.image)))
        if block.server_call is not None:
            fields, pieces = block.server_call
            arguments, error = parse_arguments("".join(pieces))
            fields["input"] = "".join(pieces) if error else arguments
            events.append(ProviderPart(self.provider, SERVER_TOOL, {"toolUse": fields}))
        if block.result is not None:
            events.append(ProviderPart(self.provider, SERVER_TOOL, {"toolResult": block.result}))

    def _stop(self, value: _MessageStop, events: list[Event]) -> None:
        if value.stopReason is None or self.reason is not None:
            self.ignored += 1
            return
        self.start(events)
        self._end_block(events)
        self.calls.finish_all(events)
        self.reason = value.stopReason
        self._end_if_counted(events)

    def _add_metadata(self, value: _Metadata, events: list[Event]) -> None:
        self._has_metadata = True
        if value.usage:
            self._usage = merge_usage(self._usage, value.usage)
            self.start(events)
            add_usage(read_converse_usage(self._usage), events)
        self._end_if_counted(events)

    def _end_if_counted(self, events: list[Event]) -> None:
        """Finish a complete response as soon as both of its counts are known; otherwise the body's end finishes it."""
        counts = self._usage or {}
        if self.reason is not None and all(counts.get(name) is not None for name in _COUNTS):
            self.end(events)

    def finish(self, events: list[Event]) -> None:
        """Finish a complete response at the end of the body. Its last event, the metadata, may have had no usage."""
        if self._has_metadata:
            self.end(events)
        else:
            super().finish(events)

    def _citation(self, raw: dict[str, Any]) -> Citation:
        found = convert_tolerantly(raw, _Source, self) or _Source()
        web = found.location.web if found.location else None
        # Other locations are ranges in the prompt's documents, not in the response text.
        return Citation(web.url if web else None, found.title, raw=raw)

    def _fail(self, value: Any, events: list[Event]) -> None:
        """Handle an exception message, which `EventStreamDecoder` converts into a frame of type `error`."""
        self.fail(stream_error(ServerSentEvent(msgspec.json.encode({"error": value.error}))))

    _named: ClassVar[Mapping[str, tuple[type[msgspec.Struct], Callable[[Any, Any, list[Event]], None]]]] = {
        "messageStart": (_NoFields, _begin),
        "contentBlockStart": (_BlockStart, _start_block),
        "contentBlockDelta": (_BlockDelta, _add_delta),
        "contentBlockStop": (_BlockStop, _stop_block),
        "messageStop": (_MessageStop, _stop),
        "metadata": (_Metadata, _add_metadata),
    }
    handlers: ClassVar[Handlers] = {
        **{name: (TolerantDecoder(kind), handle) for name, (kind, handle) in _named.items()},
        "error": (TolerantDecoder(_Failure), _fail),
    }


class _Wrapped(msgspec.Struct, gc=False):
    contentBlockDelta: _BlockDelta | None = None  # noqa: N815
    contentBlockStop: _BlockStop | None = None  # noqa: N815
    contentBlockStart: _BlockStart | None = None  # noqa: N815
    messageStart: _NoFields | None = None  # noqa: N815
    messageStop: _MessageStop | None = None  # noqa: N815
    metadata: _Metadata | None = None


_WRAPPED = TolerantDecoder(_Wrapped)


class _Message(msgspec.Struct):
    content: list[Any] | None = None


class _Output(msgspec.Struct):
    message: _Message | None = None


class _Document(msgspec.Struct):
    output: _Output | None = None
    stopReason: str | None = None  # noqa: N815
    usage: dict[str, Any] | None = None


_DOCUMENTS = TolerantDecoder(_Document)

# The `start` of a complete block (None without one) and its deltas, as a stream would have them.
_Pieces = tuple[Any, list[Any]]


def _tool_use_pieces(payload: ConversePayload, block: dict[str, Any]) -> _Pieces:
    value = block.get("input")
    return block, [{"toolUse": {"input": value}}] if value not in (None, {}) else []


def _tool_result_pieces(payload: ConversePayload, block: dict[str, Any]) -> _Pieces:
    return block, [{"toolResult": block.get("content")}]


def _reasoning_pieces(payload: ConversePayload, block: dict[str, Any]) -> _Pieces:
    return None, [{"reasoningContent": block.get("reasoningText") or block}]


def _citation_pieces(payload: ConversePayload, block: dict[str, Any]) -> _Pieces:
    cited = [{"citation": each} for each in payload.list_of(block, "citations")]
    return None, [*cited, *payload.list_of(block, "content")]


_PIECES: dict[str, Callable[[ConversePayload, Any], _Pieces]] = {
    "text": lambda _, text: (None, [{"text": text}]),
    "toolUse": _tool_use_pieces,
    "toolResult": _tool_result_pieces,
    "reasoningContent": _reasoning_pieces,
    "citationsContent": _citation_pieces,
    "image": lambda _, block: (block, [{"image": block}]),
}


def _joined_base64(pieces: list[str]) -> str:
    """Return the base64 of the joined data of `pieces`, each of which is base64 on its own."""
    if len(pieces) == 1:
        return pieces[0]
    try:
        return base64.b64encode(b"".join(base64.b64decode(piece) for piece in pieces)).decode()
    except (binascii.Error, ValueError):
        return "".join(pieces)
