"""Requests of browsers: bodies of `useChat`, AG-UI and Chat Completions -> conversations.

The history in such a body comes from the browser, so anyone can write anything into it. What would act with the
authority of the application is refused unless the application allows it: instructions, results of tools, and URLs,
which a provider would fetch. A decision about a tool call counts only for a call that the application has asked about.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import msgspec

from lm_deluge.encoders.openai_chat.request import CHAT_ROLES
from lm_deluge.encoders.openai_chat.request_fields import read_messages, unpaired_tools
from lm_deluge.errors import BadRequestError, ChatRequestError, ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, ToolResultPart
from lm_deluge.ui.ag_ui_messages import read_ag_ui
from lm_deluge.ui.approvals import ApprovalKey, check_key, decided_parts, decisions_in, settled
from lm_deluge.ui.ui_messages import read_ui_messages

__all__ = ["FILE_TYPES", "approvals_from", "conversation_from", "request_options"]

JSON = dict[str, Any]
_File: TypeAlias = ImagePart | FilePart | AudioPart

FILE_TYPES = (
    *("image/png", "image/jpeg", "image/gif", "image/webp"),
    *("application/pdf", "text/plain", "text/markdown", "text/csv"),
    *("audio/mpeg", "audio/wav"),
)
"""Types of the files that a browser may send by default: those that most models read, none that can have scripts."""
_MOST_FILE_BYTES = 10 * 2**20  # enough for a photo or a scanned document; providers accept 20 to 50 MB per request
_MOST_MESSAGES = 1_000  # far longer than a conversation with a person, and decoded in milliseconds


def conversation_from(
    body: Mapping[str, Any] | bytes | str,
    *,
    allow_system: bool = False,
    allow_tool_results: bool = False,
    allow_urls: bool = False,
    file_types: Collection[str] = FILE_TYPES,
    max_file_bytes: int = _MOST_FILE_BYTES,
    max_messages: int = _MOST_MESSAGES,
    approval_key: ApprovalKey | None = None,
) -> Conversation:
    """Return the conversation in the body of a chat request: of `useChat`, AG-UI, or Chat Completions.

    The answers in it are what the browser claims that they were; where that matters, keep the conversation on the
    server. Reasoning, sources, and calls without results are left out.

    Args:
        body: The body, as JSON text or decoded.
        allow_system: Accept system and developer messages.
        allow_tool_results: Accept results of tools.
        allow_urls: Accept http(s) URLs of files, which providers fetch. By default files are data URLs.
        file_types: The accepted media types of files; by default images, PDF, text and audio.
        max_file_bytes: The largest accepted file; 10 MiB by default.
        max_messages: The largest accepted number of messages; 1,000 by default.
        approval_key: Accept decisions about tool calls: those that `StreamResponse` has signed with the same key. A
            call that was approved is open at the end of the conversation, so that a loop runs it.

    Returns:
        The conversation, for `client.stream`.

    Raises:
        ChatRequestError: The body is malformed, or has what is not allowed. Answer with the status 400 and its message.
        ConfigurationError: `approval_key` is too short.

    Example:
        >>> conversation = conversation_from(await request.json())
        >>> stream = client.stream(conversation_from(body).with_message(Message.user("Be brief.")))
    """
    check_key(approval_key)
    raw = _decoded(body)
    messages = _messages_of(raw, max_messages)
    decisions = decisions_in(raw, approval_key)
    if decisions and approval_key is None:
        hint = "Keep conversations with tools on the server, or see `approval_key`."
        raise ChatRequestError("decisions about tool calls are not allowed here", hint=hint)
    try:
        found = _reader_of(raw)(messages, max_file_bytes, {decision.call_id for decision in decisions})
    except ChatRequestError:
        raise
    except (BadRequestError, ConfigurationError) as error:
        raise ChatRequestError(error.message) from None
    _check_authority(found, allow_system=allow_system, allow_tool_results=allow_tool_results)
    for part in chain.from_iterable(map(_files_of, found)):
        _check_file(part, file_types, max_file_bytes, allow_urls=allow_urls)
    if not found:
        raise ChatRequestError("the request has no messages")
    if decisions and approval_key is not None:
        found = settled(found, decisions, approval_key)
    return Conversation(found)


def approvals_from(
    body: Mapping[str, Any] | bytes | str, *, approval_key: ApprovalKey | None = None
) -> dict[str, bool]:
    """Return the decisions about tool calls in the body of a chat request, by the ids of the calls.

    They are for `client.stream(..., decisions=...)`, with a conversation that the server has kept, or with
    `conversation_from(body, approval_key=...)`: ids that are not in the conversation decide nothing.

    Args:
        body: The body, as JSON text or decoded.
        approval_key: The key of `StreamResponse`, if it has one.

    Returns:
        For each id of a call whether it may run; empty if the request has no decisions.

    Raises:
        ChatRequestError: The body is malformed.
        ConfigurationError: `approval_key` is too short.

    Example:
        >>> decisions = approvals_from(body)
        >>> stream = client.stream(paused[body["id"]], tools=tools, run_tools=True, decisions=decisions)
    """
    check_key(approval_key)
    return {each.call_id: each.is_approved for each in decisions_in(_decoded(body), approval_key)}


def _check_authority(messages: Sequence[Message], *, allow_system: bool, allow_tool_results: bool) -> None:
    for message in messages:
        if message.role in ("system", "developer") and not allow_system:
            raise ChatRequestError(f"{message.role} messages are not allowed here", hint="See `allow_system`.")
        if message.tool_results and not allow_tool_results:
            raise ChatRequestError(
                "results of tools are not allowed here",
                hint="Keep conversations with tools on the server, or see `allow_tool_results`.",
            )


def _messages_of(raw: Mapping[str, Any], most: int) -> list[JSON]:
    messages = raw.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ChatRequestError("the request has no messages")
    if len(messages) > most:
        raise ChatRequestError(f"the request has more than {most:,} messages")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ChatRequestError(f"messages[{position}] is not an object with a role")
    return messages


def _files_of(message: Message) -> Iterator[_File]:
    for part in message.parts:
        if isinstance(part, ImagePart | FilePart | AudioPart):
            yield part
        elif isinstance(part, ToolResultPart):
            yield from part.media


def _decoded(body: Mapping[str, Any] | bytes | str) -> Mapping[str, Any]:
    raw: Any = body
    if isinstance(body, bytes | bytearray | memoryview | str):
        try:
            raw = msgspec.json.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise ChatRequestError("the body of the request is not JSON") from None
    if not isinstance(raw, Mapping):
        raise ChatRequestError("the body of the request is not a JSON object")
    return raw


def _reader_of(raw: Mapping[str, Any]) -> Any:
    if "threadId" in raw and "runId" in raw:
        return read_ag_ui
    if any("parts" in message for message in raw["messages"]):
        return read_ui_messages
    return _read_chat


def _read_chat(messages: Sequence[JSON], max_file_bytes: int, open_ids: Collection[str]) -> list[Message]:
    return read_messages({"messages": messages}, CHAT_ROLES, unpaired_tools)


def _check_file(part: _File, types: Collection[str], max_bytes: int, *, allow_urls: bool) -> None:
    media = part.media
    if media.url is not None:
        if not allow_urls:
            raise ChatRequestError("URLs of files are not allowed here, only data URLs", hint="See `allow_urls`.")
    elif media.data is None:
        raise ChatRequestError("files that are stored at a provider are not allowed here")
    elif len(media.data) > max_bytes:
        raise ChatRequestError(f"a file has more than {max_bytes:,} bytes")
    if media.media_type is not None and media.media_type not in types:
        raise ChatRequestError("files of this type are not allowed here", hint="See `file_types`.")


def request_options(protocol: str, request: Mapping[str, Any] | None, approval_key: ApprovalKey | None = None) -> JSON:
    """Return the options of an encoder that belong to a request: the ids in the frames are those of the request."""
    if request is None:
        return {}
    messages = request.get("messages")
    known = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    if protocol not in ("ag-ui", "vercel-ui"):
        return {}
    try:
        decisions = decisions_in(request, approval_key)
    except ChatRequestError:  # the application has answered with something else than this request asks for
        decisions = []
    if protocol == "ag-ui":
        ids = {"thread_id": request.get("threadId"), "run_id": request.get("runId")}
        denied = [each.call_id for each in decisions if not each.is_approved]
        return {
            "messages": known,
            "denied": denied,
            **{name: each for name, each in ids.items() if isinstance(each, str)},
        }
    last = known[-1] if known else {}
    named = last.get("id") if last.get("role") == "assistant" else None  # the answer goes on with this message
    message_id = named if isinstance(named, str) else f"msg-{uuid.uuid4().hex}"
    return {"message_id": message_id, "decided": decided_parts(request) if decisions else ()}
