"""The routes of Ollama's own API: https://github.com/ollama/ollama/blob/main/docs/api.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, NotFoundError
from lm_deluge.events import Event
from lm_deluge.simulator.answers import RoutedRequest, check_model, model_names
from lm_deluge.simulator.batches.jobs import parsed_object
from lm_deluge.simulator.endpoints.route import SimulatedApi, document_route, model_call_route, model_call_routes

__all__ = ["OLLAMA"]

_CHAT = find_encoder("ollama-chat")
_VERSION = "0.12.0"  # a version that has every field the encoder writes; clients compare it with the one they need
_LATEST = ":latest"  # the tag of a name without a tag
_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "simulator",
    "families": ["simulator"],
    "parameter_size": "0B",
    "quantization_level": "F16",
}
_CONTEXT_LENGTH = 131_072  # of recent models such as llama3.1; the simulator does not enforce it
_UNCHANGED = "1970-01-01T00:00:00Z"


def _parse_generate(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse a request of `/api/generate`, as a chat of a system message and a user message."""
    raw = parsed_object(body)
    prompt, system = raw.get("prompt") or "", raw.get("system") or ""
    if not isinstance(prompt, str) or not isinstance(system, str):
        raise BadRequestError("invalid request: prompt and system must be strings", status_code=400)
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt, "images": raw.get("images")})
    chat = {name: value for name, value in raw.items() if name not in ("prompt", "system", "images", "tools")}
    parsed = _CHAT.parse_request(
        msgspec.json.encode({**chat, "messages": messages}), model=model, is_streamed=is_streamed
    )
    return msgspec.structs.replace(parsed, raw=raw)


def _stream_generate(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    for line in _CHAT.encode_stream(events, created=created, include_usage=include_usage):
        yield _without_message(line) + b"\n"


def _plain_generate(events: Iterable[Event], *, created: int = 0) -> bytes:
    return _without_message(_CHAT.encode_response(events, created=created))


def _without_message(data: bytes) -> bytes:
    """Return the JSON of a chat answer with the fields that `/api/generate` has in place of the message."""
    fields: dict[str, Any] = msgspec.json.decode(data)
    message = fields.pop("message", {})
    text = {"response": message.get("content", "")}
    thinking = {"thinking": message["thinking"]} if message.get("thinking") else {}
    context: dict[str, Any] = {"context": []} if fields.get("done") else {}
    return msgspec.json.encode({**fields, **text, **thinking, **context})


_GENERATE = replace(
    _CHAT, parse_request=_parse_generate, encode_stream=_stream_generate, encode_response=_plain_generate
)


def _list_models(routed: RoutedRequest) -> dict[str, Any]:
    return {"models": [_model_row(name) for name in model_names()]}


def _model_row(name: str) -> dict[str, Any]:
    empty = {"modified_at": _UNCHANGED, "size": 0, "digest": "0" * 64, "details": _DETAILS}
    return {"name": name, "model": name, **empty}


def _show_model(routed: RoutedRequest) -> dict[str, Any]:
    raw = parsed_object(routed.request.body)
    name = raw.get("model") or raw.get("name")  # older clients send `name`
    if not isinstance(name, str):
        raise BadRequestError("model is required", status_code=400)
    try:
        check_model(name.removesuffix(_LATEST))
    except NotFoundError as error:
        raise NotFoundError(f"model '{name[:100]}' not found", status_code=404) from error
    return {
        "modelfile": f"FROM {name}",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "license": "",
        "details": _DETAILS,
        "model_info": {"general.architecture": "simulator", "simulator.context_length": _CONTEXT_LENGTH},
        "capabilities": ["completion", "tools", "thinking", "vision"],
        "modified_at": _UNCHANGED,
    }


OLLAMA = SimulatedApi(
    _CHAT,
    (
        *model_call_routes(_CHAT),
        model_call_route(_GENERATE, "/api/generate"),
        document_route("GET", "/api/tags", _CHAT, _list_models),
        document_route("GET", "/api/ps", _CHAT, _list_models),
        document_route("POST", "/api/show", _CHAT, _show_model),
        document_route("GET", "/api/version", _CHAT, lambda _: {"version": _VERSION}),
    ),
    paths=r"/api(?:/.*)?",
)
