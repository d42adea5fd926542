"""Build the request body in the native format of each family of models.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.request import build_messages_body
from lm_deluge.adapters.bedrock_converse.models import find_family, find_vendor
from lm_deluge.adapters.bedrock_converse.request import (
    UNSUPPORTED,
    build_messages,
    build_tool_config,
    reject_unsupported,
)
from lm_deluge.adapters.bedrock_invoke.prompt_templates import (
    llama_prompt,
    mistral_prompt,
    single_prompt,
    text_turns,
    titan_prompt,
)
from lm_deluge.adapters.capabilities import cannot_take, check_capabilities
from lm_deluge.adapters.openai_chat.request import build_chat_body
from lm_deluge.adapters.text_files import takes_documents, with_inline_files

__all__ = ["build_invoke_body", "build_invoke_headers"]

JSON = dict[str, Any]

_CLAUDE_VERSION = "bedrock-2023-05-31"
_PENALTIES = ("presence_penalty", "frequency_penalty")
_UNSUPPORTED_BY_TEXT_MODELS = (*UNSUPPORTED, "reasoning_effort")


def build_invoke_body(call: Call) -> JSON:
    """Return the request's JSON in the format of the model's family. Parameters that are not set are not sent.

    Raises:
        UnsupportedParameterError: The family cannot take a parameter or a part.
    """
    return _BUILDERS[find_family(call.model.name)](call)


def build_invoke_headers(call: Call) -> dict[str, str]:
    """Return the headers for Bedrock itself: the service tier, which is not part of the model's body."""
    tier = call.params.service_tier
    return {} if tier is None else {"x-amzn-bedrock-service-tier": tier}


def _without_none(fields: JSON) -> JSON:
    return {name: value for name, value in fields.items() if value is not None}


def _stop(call: Call) -> list[str] | None:
    return list(call.params.stop) if call.params.stop else None


def _claude(call: Call) -> JSON:
    # https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html
    body = build_messages_body(call, version=_CLAUDE_VERSION, includes_stream=False)
    body.pop("service_tier", None)  # sent as a header instead
    return body


def _nova(call: Call) -> JSON:
    """Return a body in Nova's format, which resembles that of Converse."""
    # https://docs.aws.amazon.com/nova/latest/nova2-userguide/request-response-schema.html
    call = with_inline_files(call, takes_documents(call))
    check_capabilities(call, pairs="next_turn")
    reject_unsupported(call, UNSUPPORTED)
    if call.output is not None:
        raise cannot_take(
            call, "output with this model", hint="Use the bedrock-converse adapter, or define a tool with this schema."
        )
    system, messages = build_messages(call)
    params = call.params
    inference = _without_none(
        {
            "maxTokens": params.max_new_tokens,
            "temperature": params.temperature,
            "topP": params.top_p,
            "stopSequences": _stop(call),
        }
    )
    if params.reasoning_effort is not None:
        if params.reasoning_effort not in ("none", "low", "medium", "high"):
            raise cannot_take(
                call, f"reasoning_effort={params.reasoning_effort!r}", hint="It takes: low, medium, high."
            )
        is_off = params.reasoning_effort == "none"
        inference["reasoningConfig"] = (
            {"type": "disabled"} if is_off else {"type": "enabled", "maxReasoningEffort": params.reasoning_effort}
        )
    fields = {"system": system, "inferenceConfig": inference, "toolConfig": build_tool_config(call)}
    return {
        "schemaVersion": "messages-v1",
        "messages": messages,
        **{name: value for name, value in fields.items() if value},
    }


def _chat(call: Call) -> JSON:
    """Return a body in OpenAI's format without the model and `stream`, which Bedrock takes from the path."""
    body = build_chat_body(call)
    for name in ("model", "stream", "stream_options", "service_tier"):
        body.pop(name, None)
    vendor = find_vendor(call.model.name)
    limit = body.pop("max_completion_tokens", body.pop("max_tokens", None))
    if limit is not None:
        body["max_completion_tokens" if vendor == "openai" else "max_tokens"] = limit
    if vendor == "mistral" and body.get("tool_choice") == "required":
        body["tool_choice"] = "any"
    return body


def _check_text(call: Call, *able: str) -> None:
    """Check that the call has nothing that a text completion model cannot take, except the parameters `able`."""
    check_capabilities(with_inline_files(call))
    reject_unsupported(call, tuple(name for name in _UNSUPPORTED_BY_TEXT_MODELS if name not in able))
    if call.params.stop and "stop" not in able:
        raise cannot_take(call, "stop with this model")
    for name, value in (("tools", call.tools), ("output", call.output), ("cache", call.cache)):
        if value:
            raise cannot_take(call, f"{name} with this model", hint="Use the bedrock-converse adapter.")


def _titan(call: Call) -> JSON:
    _check_text(call, "stop")
    params = call.params
    config = {
        "maxTokenCount": params.max_new_tokens,
        "temperature": params.temperature,
        "topP": params.top_p,
        "stopSequences": _stop(call),
    }
    known = _without_none(config)
    return {"inputText": titan_prompt(call), **({"textGenerationConfig": known} if known else {})}


def _llama(call: Call) -> JSON:
    _check_text(call)
    generation = call.model.name.rpartition("meta.")[2][: len("llama0")]
    fields = {
        "prompt": llama_prompt(call, generation),
        "max_gen_len": call.params.max_new_tokens,
        "temperature": call.params.temperature,
        "top_p": call.params.top_p,
    }
    return _without_none(fields)


def _mistral_text(call: Call) -> JSON:
    _check_text(call, "stop")
    fields = {
        "prompt": mistral_prompt(call),
        "max_tokens": call.params.max_new_tokens,
        "temperature": call.params.temperature,
        "top_p": call.params.top_p,
        "stop": _stop(call),
    }
    return _without_none(fields)


def _command(call: Call) -> JSON:
    _check_text(call, "stop")
    fields = {
        "prompt": single_prompt(call),
        "max_tokens": call.params.max_new_tokens,
        "temperature": call.params.temperature,
        "p": call.params.top_p,
        "stop_sequences": _stop(call),
        "stream": True if call.is_streamed else None,
    }
    return _without_none(fields)


def _command_r(call: Call) -> JSON:
    _check_text(call, "stop", "seed", *_PENALTIES)
    turns = text_turns(call)
    if not turns or turns[-1][0] != "user":
        raise cannot_take(call, "conversation with this model that does not end with a user message")
    names = {"user": "USER", "assistant": "CHATBOT", "system": "SYSTEM"}
    preamble = turns.pop(0)[1] if turns[0][0] == "system" else None
    for role, _ in turns:
        if role not in names:
            raise cannot_take(call, f"message of role {role} with this model", hint="Use the bedrock-converse adapter.")
    params = call.params
    fields = {
        "message": turns[-1][1],
        "chat_history": [{"role": names[role], "message": text} for role, text in turns[:-1]] or None,
        "preamble": preamble,
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "p": params.top_p,
        "seed": params.seed,
        "stop_sequences": _stop(call),
        **{name: getattr(params, name) for name in _PENALTIES},
    }
    return _without_none(fields)


_BUILDERS: dict[str, Callable[[Call], JSON]] = {
    "claude": _claude,
    "nova": _nova,
    "chat": _chat,
    "titan": _titan,
    "llama": _llama,
    "mistral-text": _mistral_text,
    "command": _command,
    "command-r": _command_r,
}
