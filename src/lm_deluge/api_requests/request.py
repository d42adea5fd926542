"""Builds a `Call` from the arguments of a user, checked before anything is sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.adapters.capabilities import with_warnings
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.adapters.openai_chat.routing import route_call
from lm_deluge.api_requests.credentials import check_headers, find_base_url
from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import SIMULATOR, find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation, Prompt, to_conversation
from lm_deluge.prompt.plain_values import to_plain
from lm_deluge.prompt.tool import to_tools
from lm_deluge.schemas.schema_type import schema_of

__all__ = ["build_blank_call", "build_call", "settle_call", "to_schema", "to_tools"]


def build_call(  # noqa: PLR0913 - what one request is made from
    model: ModelRow,
    prompt: Prompt,
    *,
    params: SamplingParams | None = None,
    tools: Sequence[Any] | None = None,
    output: Any = None,
    base_url: str | None = None,
    cache: PromptCache | None = None,
    background: bool = False,
    extra_headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    max_event_bytes: int = 16 * 2**20,
) -> Call:
    """Return the call.

    Raises:
        ConfigurationError: Something in it cannot be sent.
    """
    call = build_blank_call(
        model,
        params=params,
        tools=tools,
        output=output,
        base_url=base_url,
        cache=cache,
        background=background,
        extra_headers=extra_headers,
        extra_body=extra_body,
        max_event_bytes=max_event_bytes,
    )
    return settle_call(msgspec.structs.replace(call, conversation=to_conversation(prompt)))[0]


def settle_call(call: Call) -> tuple[Call, Adapter]:
    """Return a complete call with the API that serves it, its warnings, and the adapter of that API."""
    routed = route_call(call)
    adapter = find_adapter(routed.provider.adapter)
    return with_warnings(routed, adapter), adapter


def build_blank_call(  # noqa: PLR0913 - what one request is made from, but for the prompt
    model: ModelRow,
    *,
    params: SamplingParams | None = None,
    tools: Sequence[Any] | None = None,
    output: Any = None,
    base_url: str | None = None,
    cache: PromptCache | None = None,
    background: bool = False,
    extra_headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    max_event_bytes: int = 16 * 2**20,
) -> Call:
    """Return a call without a conversation: the template of many calls.

    Raises:
        ConfigurationError: Something in it cannot be sent.
    """
    if params is not None and not isinstance(params, SamplingParams):
        raise ConfigurationError("sampling_params is not a SamplingParams")
    if cache is not None and cache not in get_args(PromptCache):
        raise ConfigurationError(f"cache={cache!r} is none", hint=f"Known: {', '.join(get_args(PromptCache))}.")
    model = model.on(dt.datetime.now(tz=dt.UTC).date().isoformat())
    provider = find_provider(model.provider)
    for name, value in (("extra_headers", extra_headers), ("extra_body", extra_body)):
        if value is not None and not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} is not a mapping, but {type(value).__name__}")
    headers = dict(extra_headers or {})
    check_headers(headers)
    return Call(
        model=model,
        provider=provider,
        conversation=Conversation(),
        base_url=find_base_url(provider, base_url or _simulator_url(model)),
        params=_plain_params(params or SamplingParams()),
        tools=to_tools(tools),
        output=to_schema(output),
        extra_headers=headers,
        cache=cache,
        background=background,
        extra_body=dict(to_plain(extra_body or {})),
        max_event_bytes=max_event_bytes,
    )


def _plain_params(params: SamplingParams) -> SamplingParams:
    """Return the parameters with values of built-in types only: the JSON encoder rejects `numpy.float64`."""
    values = {name: getattr(params, name) for name in params.__struct_fields__}
    plain = {name: to_plain(value) for name, value in values.items() if not isinstance(value, list | tuple)}
    changed = {name: value for name, value in plain.items() if type(value) is not type(values[name])}
    if params.stop is not None and not isinstance(params.stop, str):
        changed["stop"] = type(params.stop)(map(to_plain, params.stop))
    return msgspec.structs.replace(params, **changed) if changed else params


def _simulator_url(model: ModelRow) -> str | None:
    """Return where the simulator runs inside this process, for the model of that name; it is started on first use."""
    if model.id != SIMULATOR:
        return None
    from lm_deluge.simulator.in_process import simulator_url

    return simulator_url()


def to_schema(output: Any) -> dict[str, Any] | None:
    """Return the JSON schema that the answer is to follow: a schema itself, or that of a type with fields.

    Raises:
        ConfigurationError: It is neither, or the type has no schema, or not one of an object.
    """
    if output is None:
        return None
    if isinstance(output, Mapping):
        plain: dict[str, Any] = to_plain(output)
        return plain
    if isinstance(output, str | int | float | list | tuple):
        raise ConfigurationError(f"output must be a type or a JSON schema, not of type {type(output).__name__}")
    schema: dict[str, Any] = schema_of(output).json_schema
    if schema.get("type") != "object":
        raise ConfigurationError(
            "output must be a type or a JSON schema of an object", hint="LLMClient.stream takes other types, too."
        )
    return schema
