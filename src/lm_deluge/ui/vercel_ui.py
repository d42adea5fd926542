"""The UI message stream of the AI SDK, which `useChat` and assistant-ui read.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol (2026-11); `ai` 7.0.173. Its client throws on a chunk of an unknown
type, on a piece of a part that is not open, and on the result of an unknown call. A connection that closes without an
`error` chunk is a success for it, so a failure always has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from lm_deluge.errors import DelugeError
from lm_deluge.events import (
    Citation,
    FinishReason,
    RoundStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
)
from lm_deluge.ui.approvals import ApprovalKey, approval_id
from lm_deluge.ui.frame_encoder import AnswerEnd, DataPart, ErrorText, compact, encode_json
from lm_deluge.ui.part_encoder import OpenCall, PartEncoder

__all__ = ["VercelEncoder"]

JSON = dict[str, Any]

_DONE = b"data: [DONE]\n\n"
_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "pause": "tool-calls",  # calls wait for a decision
}
_OF_STEPS = ("text-start", "reasoning-start", "tool-input-start", "source-url", "source-document", "file")


class VercelEncoder(PartEncoder):
    """Encoder of `vercel-ui`.

    Args:
        message_id: The id of the answer's message; None: the client chooses one.
        static_tools: Names of the tools that the page has types for: their calls become parts `tool-<name>`, and those
            of other tools `dynamic-tool`.
        approval_key: Signs the requests for approval; see `approval_id`.
        decided: Parts of the client's message whose calls the user has decided about: the answer goes on with them.
        error_text: Returns the text that the client gets for an error.
    """

    protocol_headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    def __init__(
        self,
        *,
        message_id: str | None = None,
        static_tools: Iterable[str] = (),
        approval_key: ApprovalKey | None = None,
        decided: Sequence[JSON] = (),
        error_text: ErrorText | None = None,
    ) -> None:
        denied = [part["toolCallId"] for part in decided if not part["approval"]["approved"]]
        super().__init__(approval_key=approval_key, denied=denied, error_text=error_text)
        self._message_id = message_id
        self._static_tools = frozenset(static_tools)
        self._part_count = 0
        self._part_id = ""
        self._decided = decided
        self._has_step = not decided

    def start(self) -> bytes:
        """Return the start of the message, and that of its first step.

        Where the message goes on after a decision, the calls are parts of the step before, and so are their results:
        the client looks for them there. It may have lost the message, as the answer is read again: so they are named.
        """
        super()._emit(compact({"type": "start", "messageId": self._message_id}))
        if self._has_step:
            self._start_step()
        for part in self._decided:
            self._continue_call(part)
        return self._taken()

    def _continue_call(self, part: JSON) -> None:
        call_id, approval, kind = part["toolCallId"], part["approval"], str(part.get("type"))
        self._known_calls.add(call_id)
        name = part.get("toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
        named = {"toolCallId": call_id, "toolName": name, **({"dynamic": True} if kind == "dynamic-tool" else {})}
        self._emit({"type": "tool-input-available", **named, "input": part.get("input")})
        self._emit({"type": "tool-approval-request", "approvalId": approval["id"], "toolCallId": call_id})
        verdict = {"approvalId": approval["id"], "approved": approval["approved"]}
        self._emit(compact({"type": "tool-approval-response", **verdict, "reason": approval.get("reason")}))
        if not approval["approved"]:
            self._emit({"type": "tool-output-denied", "toolCallId": call_id})

    def _emit(self, fields: Mapping[str, Any]) -> None:
        if not self._has_step and fields["type"] in _OF_STEPS:
            self._start_step()
        super()._emit(fields)

    def _start_step(self) -> None:
        self._has_step = True
        super()._emit({"type": "start-step"})

    def _end(self, outcome: AnswerEnd) -> bytes:
        if outcome.kind != "failed":
            self._close_parts()
        getattr(self, f"_end_{outcome.kind}")(outcome)
        return self._taken() + _DONE

    def _end_complete(self, outcome: AnswerEnd) -> None:
        for call in outcome.pending:
            name = approval_id(call, self._approval_key)
            self._emit({"type": "tool-approval-request", "approvalId": name, "toolCallId": call.id})
        if self._has_step:
            self._emit({"type": "finish-step"})
        reason = _FINISH_REASONS.get(outcome.finish_reason or "stop", "other")
        self._emit({"type": "finish", "finishReason": reason, "messageMetadata": outcome.metadata()})

    def _end_stopped(self, outcome: AnswerEnd) -> None:
        self._emit({"type": "message-metadata", "messageMetadata": outcome.metadata()})
        self._emit({"type": "abort", "reason": "the answer was stopped"})

    def _end_failed(self, outcome: AnswerEnd) -> None:
        error = outcome.error
        if metadata := outcome.metadata():
            self._emit({"type": "message-metadata", "messageMetadata": metadata})
        kind = type(error).__name__ if isinstance(error, DelugeError) else "InternalError"
        details = {"type": kind, "retryable": isinstance(error, DelugeError) and type(error).retryable}
        self._emit_data(DataPart("error", details, transient=True))
        self._emit({"type": "error", "errorText": self._text_of(error)})

    # Text

    def _start_text(self, kind: type) -> bytes:
        name = "text" if kind is TextDelta else "reasoning"
        self._part_count += 1
        self._part_id = str(self._part_count)
        self._emit({"type": f"{name}-start", "id": self._part_id})
        return b'data: {"type":"%b-delta","id":"%b","delta":' % (name.encode(), self._part_id.encode())

    def _end_text(self, kind: type) -> None:
        self._emit({"type": "text-end" if kind is TextDelta else "reasoning-end", "id": self._part_id})

    # Calls

    def _named(self, call_id: str, name: str) -> JSON:
        is_static = name in self._static_tools
        return {"toolCallId": call_id, "toolName": name, **({} if is_static else {"dynamic": True})}

    def _open_call(self, event: ToolCallStarted) -> bytes:
        encoding = {"inputEncoding": "text"} if event.custom else {}
        self._emit({"type": "tool-input-start", **self._named(event.id, event.name), **encoding})
        return b'data: {"type":"tool-input-delta","toolCallId":%b,"inputTextDelta":' % encode_json(event.id)

    def _close_call(self, call: OpenCall, event: ToolCallFinished) -> None:
        named = self._named(call.started.id, event.name)
        if event.arguments_error is not None and not event.custom:
            failure = {"input": event.arguments_text, "errorText": event.arguments_error}
            self._emit({"type": "tool-input-error", **named, **failure})
            return
        arguments = event.arguments_text if event.custom else event.arguments
        self._emit({"type": "tool-input-available", **named, "input": arguments})

    def _write_progress(self, event: ToolProgress) -> None:
        self._emit(
            {
                "type": "tool-output-available",
                "toolCallId": event.call_id,
                "output": event.progress,
                "preliminary": True,
            }
        )

    def _write_result(self, event: ToolResult) -> None:
        if event.error is not None:
            text = event.result or event.error
            self._emit({"type": "tool-output-error", "toolCallId": event.call_id, "errorText": text})
            return
        output = _structured(event.result)
        self._emit({"type": "tool-output-available", "toolCallId": event.call_id, "output": output})

    # Media and sources

    def _add_source(self, event: Citation, source_id: str) -> None:
        if event.url:
            self._emit(compact({"type": "source-url", "sourceId": source_id, "url": event.url, "title": event.title}))
        else:
            document = {"sourceId": source_id, "mediaType": "text/plain", "title": event.title}
            self._emit({"type": "source-document", **document})

    def _write_file(self, url: str, media_type: str) -> None:
        self._emit({"type": "file", "url": url, "mediaType": media_type})

    # Attempts and rounds

    def _discard_round(self) -> JSON:
        self._emit({"type": "reset-step"})
        return {}

    def _next_round(self, event: RoundStarted) -> None:
        if self._has_step:
            self._emit({"type": "finish-step"})
        self._start_step()

    def _emit_data(self, event: DataPart) -> None:
        transient = True if event.transient else None
        self._emit(
            compact({"type": f"data-{event.name}", "id": event.id, "transient": transient}) | {"data": event.data}
        )


def _structured(result: str) -> Any:
    """Return the result of a tool as data if it is a JSON object or list, as pages use it; otherwise its text."""
    if result.startswith(("{", "[")):
        try:
            return msgspec.json.decode(result)
        except (msgspec.DecodeError, ValueError):
            return result
    return result
