"""AG-UI 1.0, which CopilotKit and other clients of agents read.

https://docs.ag-ui.com/concepts/events (2026-11); `@ag-ui/client` 1.0.0. Its client enforces an order: RUN_STARTED is
first, and RUN_FINISHED follows only after the end of each message, call, step and reasoning. Optional fields are
absent, never null. A connection that closes without RUN_ERROR is a success for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lm_deluge.errors import DelugeError
from lm_deluge.events import (
    Citation,
    RoundStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
)
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.ui.approvals import DENIED, ApprovalKey, approval_id
from lm_deluge.ui.frame_encoder import AnswerEnd, DataPart, ErrorText, compact, encode_json
from lm_deluge.ui.part_encoder import OpenCall, PartEncoder

__all__ = ["AGUIEncoder"]

JSON = dict[str, Any]
# The payload of a resume entry: https://docs.ag-ui.com/concepts/interrupts (2026-11)
_DECISION: JSON = {"type": "object", "properties": {"approved": {"type": "boolean"}}, "required": ["approved"]}


class AGUIEncoder(PartEncoder):
    """Encoder of `ag-ui`.

    Args:
        thread_id, run_id: As the request has them.
        message_id: Start of the ids of messages; None: it is random.
        messages: The messages of the request. With them, an answer that starts again takes back what it sent, by a
            MESSAGES_SNAPSHOT.
        approval_key: Signs the interrupts; see `approval_id`.
        denied: Ids of the calls that the user has denied in the request.
        error_text: Returns the text that the client gets for an error.
    """

    def __init__(
        self,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        message_id: str | None = None,
        messages: Sequence[JSON] | None = None,
        approval_key: ApprovalKey | None = None,
        denied: Collection[str] = (),
        error_text: ErrorText | None = None,
    ) -> None:
        super().__init__(approval_key=approval_key, denied=denied, error_text=error_text)
        self._known_calls |= _calls_in(messages or ())
        self._message_id = message_id or uuid.uuid4().hex
        self._run = {"threadId": thread_id or f"thread-{self._message_id}", "runId": run_id or self._message_id}
        self._message_count = 0
        self._text_id = ""  # of the open text or reasoning
        self._parent_id: str | None = None  # the message that the calls of this round belong to
        self._step: str | None = None
        self._kept = None if messages is None else KeptMessages(messages)
        self._round_ids: list[str] = []  # of the messages of this round

    def start(self) -> bytes:
        """Return the start of the run."""
        self._emit({"type": "RUN_STARTED", **self._run})
        for call_id in self._denied:
            self._write_text_result(call_id, DENIED)
        return self._taken()

    def _end(self, outcome: AnswerEnd) -> bytes:
        usage = _usage(outcome)
        if outcome.kind == "failed":
            error = outcome.error
            code = type(error).__name__ if isinstance(error, DelugeError) else "InternalError"
            self._emit({"type": "RUN_ERROR", "message": self._text_of(error), "code": code, **usage})
            return self._taken()
        self._close_round()
        self._end_step()
        ended: JSON = {"outcome": {"type": "cancelled"}}
        if outcome.kind == "complete":
            ended = {"result": outcome.metadata(), "outcome": self._success(outcome)}
        self._emit({"type": "RUN_FINISHED", **self._run, **ended, **usage})
        return self._taken()

    def _success(self, outcome: AnswerEnd) -> JSON:
        if outcome.pending:
            return {"type": "interrupt", "interrupts": [self._interrupt(call) for call in outcome.pending]}
        return {"type": "success"}

    def _interrupt(self, call: ToolCallPart) -> JSON:
        name = approval_id(call, self._approval_key)
        return {"id": name, "reason": "tool_call", "toolCallId": call.id, "responseSchema": _DECISION}

    def _close_round(self) -> None:
        self._close_parts()
        for call in self._calls.values():
            self._emit({"type": "TOOL_CALL_END", "toolCallId": call.started.id})
        self._calls = {}

    def _new_id(self) -> str:
        self._message_count += 1
        message = self._message_id if self._message_count == 1 else f"{self._message_id}-{self._message_count}"
        self._round_ids.append(message)
        return message

    def _flush(self) -> None:
        if self._kept is not None:
            self._kept.add_pieces(self._head, self._pieces)
        super()._flush()

    # Text

    def _start_text(self, kind: type) -> bytes:
        self._text_id = message = self._new_id()
        if kind is TextDelta:
            self._parent_id = message
            self._emit({"type": "TEXT_MESSAGE_START", "messageId": message, "role": "assistant"})
        else:
            self._emit({"type": "REASONING_START", "messageId": message})
            self._emit({"type": "REASONING_MESSAGE_START", "messageId": message, "role": "reasoning"})
        name = b"TEXT" if kind is TextDelta else b"REASONING"
        head = b'data: {"type":"%b_MESSAGE_CONTENT","messageId":%b,"delta":' % (name, encode_json(message))
        if self._kept is not None:
            self._kept.add_message(message, "assistant" if kind is TextDelta else "reasoning", head)
        return head

    def _end_text(self, kind: type) -> None:
        if kind is TextDelta:
            self._emit({"type": "TEXT_MESSAGE_END", "messageId": self._text_id})
        else:
            self._emit({"type": "REASONING_MESSAGE_END", "messageId": self._text_id})
            self._emit({"type": "REASONING_END", "messageId": self._text_id})

    # Calls

    def _open_call(self, event: ToolCallStarted) -> bytes:
        self._parent_id = self._parent_id or self._new_id()
        named = {"toolCallId": event.id, "toolCallName": event.name, "parentMessageId": self._parent_id}
        self._emit({"type": "TOOL_CALL_START", **named})
        head = b'data: {"type":"TOOL_CALL_ARGS","toolCallId":%b,"delta":' % encode_json(event.id)
        if self._kept is not None:
            self._kept.add_call(self._parent_id, event.id, event.name, head)
        return head

    def _close_call(self, call: OpenCall, event: ToolCallFinished) -> None:
        if event.arguments_text and not call.has_arguments:
            self._write(call.head, event.arguments_text)
        self._emit({"type": "TOOL_CALL_END", "toolCallId": call.started.id})

    def _write_progress(self, event: ToolProgress) -> None:
        progress = {"toolCallId": event.call_id, "toolName": event.name, "progress": event.progress}
        self._emit_data(DataPart("tool-progress", progress))

    def _write_result(self, event: ToolResult) -> None:
        self._write_text_result(event.call_id, event.result or event.error or "")

    def _write_text_result(self, call_id: str, text: str) -> None:
        result = {"messageId": self._new_id(), "toolCallId": call_id, "content": text, "role": "tool"}
        self._emit({"type": "TOOL_CALL_RESULT", **result})
        if self._kept is not None:
            self._kept.add_result(result)

    # Media and sources

    def _add_source(self, event: Citation, source_id: str) -> None:
        self._emit_data(DataPart("source", compact({"id": source_id, "url": event.url, "title": event.title})))

    def _write_file(self, url: str, media_type: str) -> None:
        self._emit_data(DataPart("file", {"url": url, "mediaType": media_type}))

    # Attempts and rounds

    def _discard_round(self) -> JSON:
        """Without the messages of the request, the client only learns which messages it has to remove."""
        self._close_round()
        if self._kept is not None:
            self._emit({"type": "MESSAGES_SNAPSHOT", "messages": self._kept.discard_round()})
        discarded, self._round_ids, self._parent_id = self._round_ids, [], None
        return {"discards": discarded}

    def _next_round(self, event: RoundStarted) -> None:
        self._close_round()
        self._end_step()
        if self._kept is not None:
            self._kept.end_round()
        self._parent_id, self._round_ids = None, []
        self._step = f"round {event.number}"
        self._emit({"type": "STEP_STARTED", "stepName": self._step})

    def _end_step(self) -> None:
        if self._step is not None:
            self._emit({"type": "STEP_FINISHED", "stepName": self._step})
            self._step = None

    def _emit_data(self, event: DataPart) -> None:
        self._emit({"type": "CUSTOM", "name": event.name, "value": event.data})


class KeptMessages:
    """The messages that a client has, so that a snapshot can take back those of a round.

    Args:
        messages: The messages of the request.
    """

    def __init__(self, messages: Sequence[JSON]) -> None:
        self._earlier = [*messages]
        self._round: list[JSON] = []
        self._texts: dict[bytes, tuple[JSON, str]] = {}  # by the head of a part: the object and the field of its text

    def add_message(self, message_id: str, role: str, head: bytes) -> None:
        """Add a message without its text."""
        message: JSON = {"id": message_id, "role": role, "content": ""}
        self._round.append(message)
        self._texts[head] = message, "content"

    def add_call(self, parent_id: str, call_id: str, name: str, head: bytes) -> None:
        """Add a call without its arguments."""
        parent: JSON | None = next((each for each in self._round if each["id"] == parent_id), None)
        if parent is None:
            parent = {"id": parent_id, "role": "assistant", "toolCalls": []}
            self._round.append(parent)
        function: JSON = {"name": name, "arguments": ""}
        calls: list[JSON] = parent.setdefault("toolCalls", [])
        calls.append({"id": call_id, "type": "function", "function": function})
        self._texts[head] = function, "arguments"

    def add_pieces(self, head: bytes, pieces: Sequence[str]) -> None:
        """Add text to the part with this head."""
        target, field = self._texts[head]
        target[field] += "".join(pieces)

    def add_result(self, result: JSON) -> None:
        """Add the result of a call."""
        self._round.append({"id": result["messageId"], **{name: result[name] for name in _RESULT_FIELDS}})

    def end_round(self) -> None:
        """Start another round: the messages stay."""
        self._earlier += self._round
        self._round, self._texts = [], {}

    def discard_round(self) -> list[JSON]:
        """Remove the messages of the round; return those that are left.

        The client keeps its messages of reasoning if the snapshot has none, so those of the round are in it, empty.
        """
        emptied = [{**message, "content": ""} for message in self._round if message["role"] == "reasoning"]
        self._round, self._texts = [], {}
        return [*self._earlier, *emptied]


_RESULT_FIELDS = ("role", "toolCallId", "content")


def _calls_in(messages: Sequence[JSON]) -> set[str]:
    """Return the ids of the calls in the messages of a request: their results need no further start."""
    lists = [message.get("toolCalls") for message in messages]
    calls = [call for each in lists if isinstance(each, list) for call in each if isinstance(call, dict)]
    return {call["id"] for call in calls if isinstance(call.get("id"), str)}


def _usage(outcome: AnswerEnd) -> Mapping[str, Any]:
    """Return the field with the token counts, if they are known."""
    usage = outcome.usage
    if usage is None:
        return {}
    counts = {
        "model": outcome.model,
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
    return {"usage": [compact(counts)]}
