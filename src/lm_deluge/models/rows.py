"""The rows of the registry: a model, and a provider that serves models."""

from __future__ import annotations

from typing import Literal

import msgspec

from lm_deluge.usage import Price

__all__ = ["Capabilities", "ModelRow", "ProviderRow", "Quirks"]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model takes. A row that says nothing takes everything: an unknown model is not second-guessed.

    Attributes:
        reasoning: It thinks before it answers, maybe for minutes in silence; None: unknown.
        reasoning_efforts: The efforts it takes; empty: any.
        sampling: It takes temperature, top_p and penalties; OpenAI's reasoning models refuse them.
        logprobs: It gives log probabilities.
        tools: It calls tools.
        json_schema: It can be held to a JSON schema.
        image_input, file_input, audio_input: It takes these media.
    """

    reasoning: bool | None = None
    reasoning_efforts: tuple[str, ...] = ()
    sampling: bool = True
    logprobs: bool = True
    tools: bool = True
    json_schema: bool = True
    image_input: bool = True
    file_input: bool = True
    audio_input: bool = True


class ModelRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model: our id, its name on the wire, who serves it, what it takes and costs.

    `context_window` and `max_output_tokens` are tokens, `price` US dollars; None where unknown.
    """

    id: str
    name: str
    provider: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    price: Price | None = None
    capabilities: Capabilities = Capabilities()


class Quirks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a host differs from the API it speaks.

    Attributes:
        usage_option: It takes `stream_options.include_usage`.
        max_tokens_field: What it calls the limit of the answer.
        file_urls: It fetches documents by URL.
    """

    usage_option: bool = True
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    file_urls: bool = False


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who serves models: where, how it knows its customers, and which wire API it speaks.

    Attributes:
        id: Our name, the part before the colon in `provider:model`.
        otel_name: OpenTelemetry's `gen_ai.provider.name`.
        adapter: Name of the wire API.
        base_url: Without a trailing slash; empty where only the environment or an argument can know.
        base_url_env, key_env: Environment variables that hold URL and key, first one set wins.
        auth: How the key travels; `none` for servers without one.
        quirks: Where it differs from the API it speaks.
    """

    id: str
    otel_name: str
    adapter: str
    base_url: str
    base_url_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    auth: Literal["bearer", "none"] = "bearer"
    quirks: Quirks = Quirks()
