"""Parse requests of Bedrock's native API, whose format depends on the model: the inverse of the adapter's builder.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.anthropic_messages.request import parse_request as parse_claude
from lm_deluge.encoders.bedrock_converse.fields import invalid, read_object, take
from lm_deluge.encoders.bedrock_converse.messages import MessageReader
from lm_deluge.encoders.bedrock_converse.request import extract_cache, read_tool_choice
from lm_deluge.encoders.bedrock_invoke.model_families import find_form
from lm_deluge.encoders.bedrock_invoke.text_models import TEXT_FORMS
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.openai_chat.request import parse_request as parse_chat
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart

__all__ = ["parse_request"]

JSON = dict[str, Any]

_API = "bedrock-invoke"
_NOVA_FIELDS = {"schemaVersion", "messages", "system", "inferenceConfig", "toolConfig"}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; the model and the streaming mode are in the path, so they are arguments.

    Raises:
        BadRequestError: The body is not a JSON object, or not in the format of the model's family.
    """
    raw = read_object(body)
    if not model:
        raise invalid("The value at modelId failed to satisfy constraint: Member must not be null.")
    parse = _PARSERS.get(find_form(model), _parse_text)
    try:
        parsed = parse(raw, model)
    except ConfigurationError as error:
        raise invalid(error.message) from error
    return msgspec.structs.replace(
        parsed,
        model=model,
        conversation=Conversation([_with_own_provider(message) for message in parsed.conversation]),
        is_streamed=bool(is_streamed),
        wants_usage=True,
        raw=raw,
    )


def _with_own_provider(message: Message) -> Message:
    """Return the message with this API as the provider of its opaque data, whose format may be that of another API."""
    parts = [
        msgspec.structs.replace(part, provider=_API) if isinstance(part, ProviderDataPart) else part
        for part in message.parts
    ]
    return Message(message.role, tuple(parts), message.name)


def _parse_text(raw: JSON, model: str) -> ParsedRequest:
    messages, params, extra = TEXT_FORMS[find_form(model)].read(raw)
    return ParsedRequest(model=model, conversation=Conversation(messages), params=params, extra=extra)


def _parse_chat(raw: JSON, model: str) -> ParsedRequest:
    known = {**raw, "tool_choice": "required"} if raw.get("tool_choice") == "any" else raw
    return parse_chat(msgspec.json.encode({**known, "model": model}))


def _parse_claude(raw: JSON, model: str) -> ParsedRequest:
    return parse_claude(msgspec.json.encode(raw), model=model)


def _parse_nova(raw: JSON, model: str) -> ParsedRequest:
    reader = MessageReader(_API)
    cache, (conversation, tools) = extract_cache(raw, reader, reader.read(raw))
    config = dict(take(raw, "inferenceConfig", dict, {}))
    at = "inferenceConfig."
    # The documentation of Nova's first generation uses both names.
    limit = take(config, "maxTokens", int, take(config, "max_new_tokens", int, at=at), at=at)
    effort = _effort(config.get("reasoningConfig"))
    params = SamplingParams(
        max_new_tokens=limit,
        temperature=take(config, "temperature", (int, float), at=at),
        top_p=take(config, "topP", (int, float), at=at),
        stop=take(config, "stopSequences", list, at=at) or None,
        tool_choice=read_tool_choice(raw),
        reasoning_effort=effort,  # type: ignore[arg-type]  # unknown efforts are passed on
    )
    extra = {name: value for name, value in raw.items() if name not in _NOVA_FIELDS}
    if set(config) - _NOVA_CONFIG or ("reasoningConfig" in config and effort is None):
        extra["inferenceConfig"] = config
    return ParsedRequest(
        model=model,
        conversation=conversation,
        params=params,
        tools=tools,
        cache=cache,
        extra=extra,
    )


_NOVA_CONFIG = {"maxTokens", "max_new_tokens", "temperature", "topP", "stopSequences", "reasoningConfig"}


def _effort(config: Any) -> str | None:
    match config:
        case {"type": "disabled"}:
            return "none"
        case {"type": "enabled", "maxReasoningEffort": str(effort)}:
            return effort
        case _:
            return None


_PARSERS: dict[str, Callable[[JSON, str], ParsedRequest]] = {
    "chat": _parse_chat,
    "claude": _parse_claude,
    "nova": _parse_nova,
}
