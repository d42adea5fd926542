"""The rows of the registry: a model, and a provider that serves models."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from lm_deluge.usage import Price

CountsMaxTokens: TypeAlias = Literal["never", "until_end", "always"]

__all__ = ["Capabilities", "CountsMaxTokens", "ModelRow", "ProviderRow", "Quirks", "UrlVariable"]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model takes. A row that says nothing takes everything: an unknown model is not second-guessed.

    Attributes:
        reasoning: It thinks before it answers, maybe for minutes in silence; None: unknown.
        reasoning_efforts: The efforts it takes; empty: any.
        reasoning_budget: It is told how many tokens to think with, not how hard to think.
        sampling: It takes temperature, top_p and penalties; OpenAI's reasoning models refuse them.
        logprobs: It gives log probabilities.
        tools: It calls tools.
        json_schema: It can be held to a JSON schema.
        image_input, file_input, audio_input: It takes these media.
        prefill: It goes on with an answer that the conversation begins; None: unknown.
        think_tags: Its text holds its reasoning between `<think>` and `</think>`; None: as the host's quirks say.
    """

    reasoning: bool | None = None
    reasoning_efforts: tuple[str, ...] = ()
    reasoning_budget: bool = False
    sampling: bool = True
    logprobs: bool = True
    tools: bool = True
    json_schema: bool = True
    image_input: bool = True
    file_input: bool = True
    audio_input: bool = True
    prefill: bool | None = None
    think_tags: bool | None = None


class ModelRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model: our id, its name on the wire, who serves it, what it takes and costs.

    `context_window` and `max_output_tokens` are tokens, `price` US dollars; None where unknown. `status` says where in
    its life it is, as far as known.
    """

    id: str
    name: str
    provider: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    status: Literal["beta", "deprecated", "retired"] | None = None
    price: Price | None = None
    capabilities: Capabilities = Capabilities()


class Quirks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a host differs from the API it speaks.

    Attributes:
        usage_option: It takes `stream_options.include_usage`.
        max_tokens_field: What it calls the limit of the answer.
        file_urls: It fetches documents by URL.
        developer_role: It knows messages of the developer; elsewhere they are sent as the system's.
        reasoning_field: The field of a message in which it wants reasoning back; `content` for tags in the text.
        prefill_echo: An answer that goes on with words that the conversation begins has these words in front.
        think_tags: Its models leave their reasoning in the text, between `<think>` and `</think>` at the beginning.
        effort_field: How `reasoning_effort` is said: by that name, within `reasoning`, or by switching `thinking` or
            `enable_thinking` on and off.
        rejects: Parameters that it refuses, by their names in `SamplingParams`; also `tools`, `output` and `name`.
        anthropic_version: What it wants to read in the body of a Messages request, in place of the model's name.
    """

    usage_option: bool = True
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    file_urls: bool = False
    developer_role: bool = True
    reasoning_field: Literal["", "reasoning_content", "reasoning", "content"] = ""
    prefill_echo: bool = False
    think_tags: bool = False
    effort_field: Literal["reasoning_effort", "reasoning", "thinking", "enable_thinking"] = "reasoning_effort"
    rejects: tuple[str, ...] = ()
    anthropic_version: str = ""


class UrlVariable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A word in a base URL that only the customer knows: a region, a project, a resource.

    Attributes:
        env: Environment variables that hold it, first one set wins.
        of: The place that it follows from instead.
        values: What it is for values of that other place.
        default: What it is where nobody says; may name other places. Empty: it must be said.
    """

    env: tuple[str, ...] = ()
    of: str = ""
    values: dict[str, str] = {}
    default: str = ""


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who serves models: where, how it knows its customers, and which wire API it speaks.

    Attributes:
        id: Our name, the part before the colon in `provider:model`.
        otel_name: OpenTelemetry's `gen_ai.provider.name`.
        adapter: Name of the wire API.
        base_url: Without a trailing slash; empty where only the environment or an argument can know. `{place}` stands
            for a word that `places` explains.
        base_url_env, key_env: Environment variables that hold URL and key, first one set wins.
        places: What the base URL leaves open.
        path, stream_path: Where plain and streamed answers are asked for, behind the base URL, in place of what the
            wire API says. `{model}` stands for the model's name; without a `stream_path` both are the same.
        query: Sent with every request.
        headers: Sent with every request.
        auth: How the key travels: as a bearer token, in a header of its own, as a bearer token where there is one, or
            not at all. `sigv4`: without a key the request is signed with AWS credentials; a key is a bearer token,
            and wins. `google`: without a key, as a token of Google's Application Default Credentials; a key goes into
            its header, and wins.
        key_header: That header.
        signs_for: The service that a signature is for.
        opaque_as: Whose opaque data (signatures, encrypted reasoning) it makes and understands; left empty, its own
            alone.
        prompt_cache: Whether it caches prompts where it is told to, by itself, or not as far as is known.
        counts_max_tokens: Whether its token limits are charged what an answer may come to, not what it comes to:
            until it ends, or always.
        batch_api: Name of the API by which it answers whole batches within a day, at half the price; empty: none.
        quirks: Where it differs from the API it speaks.
    """

    id: str
    otel_name: str
    adapter: str
    base_url: str
    base_url_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    places: dict[str, UrlVariable] = {}
    path: str = ""
    stream_path: str = ""
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    auth: Literal["bearer", "header", "optional", "google", "sigv4", "none"] = "bearer"
    key_header: str = ""
    signs_for: str = ""
    opaque_as: str = ""
    prompt_cache: Literal["explicit", "automatic", "none"] = "none"
    counts_max_tokens: CountsMaxTokens = "never"
    batch_api: str = ""
    quirks: Quirks = Quirks()

    @property
    def address_env(self) -> tuple[str, ...]:
        """The environment variables that say where requests go."""
        return (*self.base_url_env, *(name for place in self.places.values() for name in place.env))

    @property
    def opaque_owner(self) -> str:
        """The name under which opaque data of its answers is kept, and by which it is sent back."""
        return self.opaque_as or self.id
