"""Decisions of users about tool calls that wait for one, in the requests of their pages. Pure.

A browser can write any call into its history, so a decision counts only for calls that this application has asked
about: either the application keeps the conversation, and the ids of the decisions find the calls in it, or the id of
each request for approval has a signature of the call, which the browser sends back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_deluge.errors import ChatRequestError, ConfigurationError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ToolCallPart, ToolResultPart

__all__ = ["DENIED", "ApprovalKey", "Decision", "approval_id", "check_key", "decided_parts", "decisions_in", "settled"]

JSON = dict[str, Any]
ApprovalKey = str | bytes

DENIED = "The user denied this call. It was not run."
"""What the model reads about a call that the user denied."""

_VERSION = "lm-deluge approval 1"  # so that the signature of another kind of data never fits
_LEAST_KEY_BYTES = 16  # 128 bits cannot be guessed
_RESPONDED = "approval-responded"  # state of a part of `useChat` whose call the user has decided about


class Decision(NamedTuple):
    """What a user decided about a call.

    Attributes:
        call_id: The id of the call.
        approval_id: The id of the request for approval, as the client sends it back.
        is_approved: Whether the call may run.
    """

    call_id: str
    approval_id: str
    is_approved: bool


def check_key(key: ApprovalKey | None) -> None:
    """Check a key.

    Raises:
        ConfigurationError: It is too short, or no key.
    """
    if key is None:
        return
    if not isinstance(key, str | bytes):
        raise ConfigurationError(f"approval_key is a text or bytes, not {type(key).__name__}")
    if len(key) < _LEAST_KEY_BYTES:
        raise ConfigurationError(
            f"approval_key has less than {_LEAST_KEY_BYTES} bytes",
            hint='Make one with `python -c "import secrets; print(secrets.token_hex())"`, and keep it secret.',
        )


def approval_id(call: ToolCallPart, key: ApprovalKey | None) -> str:
    """Return the id of the request for approval of a call: that of the call, followed by a signature if there is a key.

    The signature covers the id, the name and the arguments. The arguments are compared as values, because browsers
    write the same JSON in another way; an integer above 2**53, which they cannot hold, makes another signature.
    """
    if key is None:
        return call.id
    arguments = call.arguments_text if call.custom or call.arguments is None else _as_in_browsers(call.arguments)
    signed = json.dumps([_VERSION, call.id, call.name, arguments], sort_keys=True, separators=(",", ":"))
    secret = key.encode() if isinstance(key, str) else key
    digest = hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{call.id}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _as_in_browsers(value: Any) -> Any:
    """Return a JSON value with integers in place of floats without a fraction: JavaScript writes 1.0 as 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _as_in_browsers(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_in_browsers(each) for each in value]
    return value


def decisions_in(raw: Mapping[str, Any], key: ApprovalKey | None = None) -> list[Decision]:
    """Return the decisions in the body of a request of `useChat` or AG-UI.

    Only the calls at the end of the conversation wait: a later message supersedes what was decided before it.

    Raises:
        ChatRequestError: A decision is malformed.
    """
    if "resume" in raw and "threadId" in raw:
        return _of_ag_ui(raw["resume"], key)
    return [_decision_of(part) for part in decided_parts(raw)]


def decided_parts(raw: Mapping[str, Any]) -> list[JSON]:
    """Return the parts of a request of `useChat` whose calls the user has decided about."""
    messages = raw.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    parts = last.get("parts") if isinstance(last, dict) and last.get("role") == "assistant" else None
    known = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return [part for part in _last_round(known) if part.get("state") == _RESPONDED]


def _decision_of(part: JSON) -> Decision:
    """https://ai-sdk.dev/docs/ai-sdk-ui/chatbot-tool-usage#tool-execution-approval (2026-11); `ai` 7.0.173."""
    approval, call_id = part.get("approval"), part.get("toolCallId")
    name = approval.get("id") if isinstance(approval, dict) else None
    verdict = approval.get("approved") if isinstance(approval, dict) else None
    if not isinstance(call_id, str) or not isinstance(name, str) or not isinstance(verdict, bool):
        raise ChatRequestError("the decision about a tool call has no id, or is neither true nor false")
    return Decision(call_id, name, verdict)


def _last_round(parts: Sequence[JSON]) -> list[JSON]:
    """Return the parts of the last step that has any; one that failed before its first part has none."""
    rounds: list[list[JSON]] = [[]]
    for part in parts:
        kind = str(part.get("type"))
        if kind == "step-start":
            rounds.append([])
        elif not kind.startswith("data-"):
            rounds[-1].append(part)
    return next((each for each in reversed(rounds) if each), [])


def _of_ag_ui(entries: Any, key: ApprovalKey | None) -> list[Decision]:
    """https://docs.ag-ui.com/spec/1.0/basic/patterns/interrupt-resume (2026-11)."""
    found: list[Decision] = []
    for entry in entries if isinstance(entries, list) else ():
        name, status = (entry.get("interruptId"), entry.get("status")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or status not in ("resolved", "cancelled"):
            raise ChatRequestError("an entry of resume has no interruptId, or is neither resolved nor cancelled")
        payload = entry.get("payload")
        verdict = payload.get("approved") if isinstance(payload, dict) else payload
        if status == "cancelled":
            verdict = False
        if not isinstance(verdict, bool):
            raise ChatRequestError('the payload of a decision is not {"approved": true} or {"approved": false}')
        found.append(Decision(name if key is None else name.rpartition(".")[0], name, verdict))
    return found


def settled(messages: list[Message], decisions: Sequence[Decision], key: ApprovalKey) -> list[Message]:
    """Return the messages whose last calls were decided: those that were denied have a result, the others are open.

    Raises:
        ChatRequestError: A decision is about a call that does not wait, or that this application has not asked about;
            or one of the calls has no decision.
    """
    start = next((at for at in reversed(range(len(messages))) if messages[at].tool_calls), None)
    following = [] if start is None else messages[start + 1 :]
    if start is None or any(message.role != "tool" for message in following):
        raise ChatRequestError("a decision is about a tool call that does not wait for one")
    answered = {part.tool_call_id for message in following for part in message.tool_results}
    open_calls = {call.id: call for call in messages[start].tool_calls if call.id not in answered}
    for decision in decisions:
        call = open_calls.get(decision.call_id)
        expected = "" if call is None else approval_id(call, key)
        if call is None or not hmac.compare_digest(expected.encode(), decision.approval_id.encode()):
            raise ChatRequestError("a decision is about a tool call that this server has not asked about")
    if len({decision.call_id for decision in decisions}) < len(open_calls):
        raise ChatRequestError("a tool call has no decision")
    denied = [decision.call_id for decision in decisions if not decision.is_approved]
    parts = [part for message in following for part in message.parts]
    parts += [ToolResultPart(call_id, DENIED, is_error=True) for call_id in dict.fromkeys(denied)]
    return [*messages[: start + 1], *([Message("tool", tuple(parts))] if parts else [])]
