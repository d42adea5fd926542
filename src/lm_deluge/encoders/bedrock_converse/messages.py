"""Parse messages of Converse and of Nova's own API: the inverse of the adapter's content blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeGuard

import msgspec

from lm_deluge.encoders.bedrock_converse.blocks import REDACTED, SERVER_TOOL, SIGNATURE
from lm_deluge.encoders.bedrock_converse.fields import invalid, need, read_base64, take
from lm_deluge.encoders.tool_pairs import check_tool_pairs, joined_ids
from lm_deluge.errors import BadRequestError
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool_pairs import OpenCalls, Orphans, has_tool_parts

__all__ = ["CACHE_POINT", "MessageReader", "without_marks"]

JSON = dict[str, Any]

_CONTENT_BLOCK = "content_block"
CACHE_POINT: JSON = {"cachePoint": {"type": "default"}}
"""A cache point without options such as a time to live: the only one that a `PromptCache` value can stand for."""

_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "pdf": "application/pdf",
    "csv": "text/csv",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_VIDEO_TYPES = {"mkv": "video/x-matroska", "mov": "video/quicktime", "flv": "video/x-flv", "wmv": "video/x-ms-wmv"}


class MessageReader:
    """Parser of the messages of a request; opaque data belong to the wire API `provider`."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.marks = 0
        """Number of cache points. They are opaque blocks until `extract_cache` finds a `PromptCache` value for them."""
        self.marked_users: list[bool] = []
        """For each user message, whether it ends with a plain cache point."""
        self.is_system_marked = False
        """Whether the system prompt ends with a plain cache point."""

    def read(self, raw: JSON) -> list[Message]:
        """Return the messages of a request, those of the system first.

        Raises:
            BadRequestError: A message is malformed.
        """
        messages: list[Message] = []
        system = take(raw, "system", list, [])
        messages += self._read_system(system, "system.")
        self.is_system_marked = bool(system) and system[-1] == CACHE_POINT
        found = need(raw, "messages", list)
        if not found:
            raise invalid("The value at messages is empty.")
        for position, message in enumerate(found):
            at = f"messages.{position}."
            if not isinstance(message, dict):
                raise invalid(f"The value at {at[:-1]} is of a wrong type.")
            role = need(message, "role", str, at=at)
            if role not in self._roles:
                raise invalid(f"The value at {at}role must be one of: user, assistant, system.")
            blocks = need(message, "content", list, at=at)
            messages += self._roles[role](self, blocks, f"{at}content.")
        check_tool_pairs(messages, "next_turn", _unpaired_tools)
        if not raw.get("toolConfig") and has_tool_parts(messages):
            raise invalid("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
        return messages

    def _system_part(self, block: Any, at: str) -> Part:
        name, value = _only_field(block, at)
        return TextPart(_text(value, at)) if name == "text" else self._block(name, block)

    def _block(self, name: str, block: JSON) -> Part:
        self.marks += name == "cachePoint"
        return self._opaque(block)

    def _opaque(self, block: JSON, kind: str = _CONTENT_BLOCK) -> ProviderDataPart:
        return ProviderDataPart(self._provider, kind, block)

    def _read_system(self, blocks: list[Any], at: str) -> list[Message]:
        parts = [self._system_part(block, f"{at}{position}.") for position, block in enumerate(blocks)]
        return [Message("system", (part,)) for part in parts]

    def _read_user(self, blocks: list[Any], at: str) -> list[Message]:
        """Return the messages of a user turn: each run of tool results becomes a message with the role `tool`."""
        runs: list[tuple[str, list[Part]]] = []
        for position, block in enumerate(blocks):
            block_path = f"{at}{position}."
            name, value = _only_field(block, block_path)
            is_result = name == "toolResult"
            part = (
                self._result(value, block, block_path) if is_result else self._content(name, value, block, block_path)
            )
            role = "tool" if isinstance(part, ToolResultPart) else "user"
            if not runs or runs[-1][0] != role:
                runs.append((role, []))
            runs[-1][1].append(part)
        self.marked_users.append(bool(blocks) and blocks[-1] == CACHE_POINT)
        return [Message("tool" if role == "tool" else "user", tuple(parts)) for role, parts in runs]

    def _content(self, name: str, value: Any, block: JSON, at: str) -> Part:
        read = _MEDIA.get(name)
        if name == "text":
            return TextPart(_text(value, at))
        part = read(value, f"{at}{name}.") if read is not None else None
        return part or self._block(name, block)

    def _result(self, value: Any, block: JSON, at: str) -> Part:
        """Return the result of a tool; a result with other content than text and media becomes opaque data."""
        fields = _object(value, f"{at}toolResult")
        at = f"{at}toolResult."
        texts: list[str] = []
        media: list[ImagePart | FilePart] = []
        for position, content in enumerate(need(fields, "content", list, at=at)):
            block_path = f"{at}content.{position}."
            name, inner = _only_field(content, block_path)
            if name == "json":
                texts.append(msgspec.json.encode(inner).decode())
                continue
            part = self._content(name, inner, content, block_path)
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif isinstance(part, ImagePart | FilePart):
                media.append(part)
            else:
                return self._opaque(block)
        is_error = fields.get("status") == "error"
        return ToolResultPart(need(fields, "toolUseId", str, at=at), "".join(texts), tuple(media), is_error)

    def _read_assistant(self, blocks: list[Any], at: str) -> list[Message]:
        parts: list[Part] = []
        for position, block in enumerate(blocks):
            block_path = f"{at}{position}."
            name, value = _only_field(block, block_path)
            if name == "text":
                parts.append(TextPart(_text(value, block_path)))
            elif name == "toolUse" and _object(value, block_path).get("type") != "server_tool_use":
                parts.append(_call(value, f"{block_path}toolUse."))
            elif name == "reasoningContent":
                parts += self._reasoning(_object(value, block_path), f"{block_path}reasoningContent.")
            else:
                parts += self._other_parts(name, value, block, block_path)
        return [Message("assistant", tuple(parts))]

    def _other_parts(self, name: str, value: Any, block: JSON, at: str) -> list[Part]:
        if name in ("toolUse", "toolResult"):
            return [self._opaque(block, SERVER_TOOL)]
        if name == "citationsContent":
            contents = take(_object(value, at), "content", list, [], at=at)
            return [TextPart(_text(_object(content, at).get("text", ""), at)) for content in contents]
        return [self._content(name, value, block, at)]

    def _reasoning(self, fields: JSON, at: str) -> list[Part]:
        redacted = take(fields, "redactedContent", str, at=at)
        if redacted is not None:
            return [ProviderDataPart(self._provider, REDACTED, redacted)]
        inner = need(fields, "reasoningText", dict, at=at)
        text = need(inner, "text", str, at=f"{at}reasoningText.")
        signature = take(inner, "signature", str, at=f"{at}reasoningText.")
        parts: list[Part] = [ReasoningPart(text)] if text else []
        return [*parts, ProviderDataPart(self._provider, SIGNATURE, signature)] if signature else parts

    _roles: ClassVar[Mapping[str, Callable[[Any, list[Any], str], list[Message]]]] = {
        "system": _read_system,
        "user": _read_user,
        "assistant": _read_assistant,
    }


def without_marks(messages: list[Message]) -> list[Message]:
    """Return the messages without plain cache points, and without messages that contain nothing else."""
    kept = []
    for message in messages:
        parts = tuple(part for part in message.parts if not (_is_block(part) and part.data == CACHE_POINT))
        if parts or not message.parts:
            kept.append(Message(message.role, parts, message.name))
    return kept


def _is_block(part: Part) -> TypeGuard[ProviderDataPart]:
    return isinstance(part, ProviderDataPart) and part.kind == _CONTENT_BLOCK


def _unpaired_tools(found: OpenCalls | Orphans) -> BadRequestError:
    if isinstance(found, Orphans):
        return invalid(
            f"The number of toolResult blocks at messages.{found.turn}.content exceeds the number of toolUse blocks of "
            "previous turn."
        )
    return invalid(
        f"Expected toolResult blocks at messages.{found.turn + 1}.content for the following Ids: {joined_ids(found)}"
    )


def _object(value: Any, at: str) -> JSON:
    if not isinstance(value, dict):
        raise invalid(f"The value at {at} is of a wrong type.")
    return value


def _only_field(block: Any, at: str) -> tuple[str, Any]:
    """Return the only field of a block that is not null: some clients send the fields of other types as null."""
    found = [(name, value) for name, value in _object(block, at).items() if value is not None and name != "type"]
    if len(found) != 1:
        raise invalid(f"The value at {at[:-1]} must have exactly one of the members of ContentBlock.")
    return found[0]


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"The value at {at}text is of a wrong type.")
    return value


def _call(value: JSON, at: str) -> ToolCallPart:
    arguments = value.get("input", {})
    text = msgspec.json.encode(arguments).decode()
    return ToolCallPart(need(value, "toolUseId", str, at=at), need(value, "name", str, at=at), text, arguments)


def _maybe_media(fields: JSON, media_type: str | None, at: str) -> Media | None:
    """Return the medium of a block, None if no part can hold its source."""
    source = need(fields, "source", dict, at=at)
    location = take(source, "s3Location", dict, at=f"{at}source.")
    if location is not None and "bucketOwner" not in location:
        uri = need(location, "uri", str, at=f"{at}source.s3Location.")
        return Media(media_type=media_type, url=uri) if uri.startswith("s3://") else None
    if "bytes" not in source:
        return None
    return Media(media_type=media_type, data=read_base64(source, "bytes", at=f"{at}source."))


def _image(value: Any, at: str) -> Part | None:
    fields = _object(value, at)
    media = _maybe_media(fields, _TYPES.get(need(fields, "format", str, at=at)), at)
    if media is not None and media.data is not None:
        media = load_media(media.data, kind="image")
    return None if media is None else ImagePart(media)


def _document(value: Any, at: str) -> Part | None:
    fields = _object(value, at)
    kind = take(fields, "format", str, "txt", at=at)
    if set(fields) - {"format", "name", "source"}:
        return None
    media = _maybe_media(fields, _TYPES.get(kind), at)
    name = need(fields, "name", str, at=at)
    return None if media is None else FilePart(msgspec.structs.replace(media, filename=f"{name}.{kind}"))


def _video(value: Any, at: str) -> Part | None:
    fields = _object(value, at)
    kind = need(fields, "format", str, at=at)
    media = _maybe_media(fields, _VIDEO_TYPES.get(kind, f"video/{kind}".replace("three_gp", "3gpp")), at)
    return None if media is None else FilePart(media)


def _audio(value: Any, at: str) -> Part | None:
    fields = _object(value, at)
    kind = need(fields, "format", str, at=at)
    media = _maybe_media(fields, f"audio/{'mpeg' if kind == 'mp3' else kind}", at)
    return None if media is None else AudioPart(media)


_MEDIA: dict[str, Callable[[Any, str], Part | None]] = {
    "image": _image,
    "document": _document,
    "video": _video,
    "audio": _audio,
}
