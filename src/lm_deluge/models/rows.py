"""The rows of the registry: models, and providers that serve them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from lm_deluge.config import ReasoningEffort
from lm_deluge.hidden import HidingStruct, shown_url
from lm_deluge.usage import Price

CountsMaxTokens: TypeAlias = Literal["never", "until_end", "always"]

__all__ = ["Capabilities", "CountsMaxTokens", "ModelRow", "ProviderRow", "Quirks", "ToolFee", "UrlVariable"]


class Capabilities(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Parameters and inputs that a model supports. By default everything is allowed, so the provider has to reject it.

    `without_reasoning`: supported by requests in which the model does not reason, because `reasoning_effort` is `none`,
    or is not set and `default_effort` is `none`.

    Attributes:
        reasoning: The model reasons before it answers, possibly for minutes without output; None: unknown.
        reasoning_efforts: The supported values of `reasoning_effort`; empty: any. `none` among them: reasoning can be
            turned off.
        default_effort: The effort of requests without `reasoning_effort`; `none`: no reasoning; None: unknown.
        reasoning_budget: Reasoning is controlled by a number of tokens instead of an effort.
        thinking: How a request controls reasoning. `effort`, `level`: by a word. `adaptive`: Claude's adaptive thinking
            with an effort. `budget`: by a number of tokens. `switch`: on or off. `fixed`: not at all, the model always
            reasons. `none`: it never reasons. None: unknown.
        thinking_off: Claude's type of `thinking` that turns reasoning off.
        sampling: Temperature and top_p are supported; OpenAI's reasoning models reject them. `ignored`: they are
            accepted without effect.
        penalties: Presence and frequency penalties are supported, if `sampling` is.
        stop: Stop sequences are supported.
        logprobs: Log probabilities are supported.
        tools: Tool calls are supported.
        forced_tool_choice: `tool_choice` may be `required` or the name of a tool.
        needs_responses: What OpenAI's Chat Completions API rejects for this model while the Responses API accepts it:
            tools in requests in which the model reasons, the effort `max`, or every request.
        json_schema: Answers that follow a JSON schema are supported.
        output_form: The strictest form of structured answers: `schema`: that of a JSON schema; `object`: any JSON
            object; None: as `json_schema` has it.
        image_input, file_input, audio_input: These media are supported in prompts.
        prefill: The model continues a last message of the role `assistant`; None: unknown.
        think_tags: The answer's text contains the reasoning between `<think>` and `</think>`; None: as in the
            provider's `Quirks`.
    """

    reasoning: bool | None = None
    reasoning_efforts: tuple[ReasoningEffort, ...] = ()
    default_effort: ReasoningEffort | None = None
    reasoning_budget: bool = False
    thinking: Literal["effort", "level", "adaptive", "budget", "switch", "fixed", "none"] | None = None
    thinking_off: Literal["disabled", "between_tools"] = "disabled"
    sampling: bool | Literal["without_reasoning", "ignored"] = True
    penalties: bool = True
    stop: bool = True
    logprobs: bool | Literal["without_reasoning"] = True
    tools: bool = True
    forced_tool_choice: bool | Literal["without_reasoning"] = True
    needs_responses: tuple[Literal["tools_while_reasoning", "effort_max", "every_request"], ...] = ()
    json_schema: bool = True
    output_form: Literal["schema", "object"] | None = None
    image_input: bool = True
    file_input: bool = True
    audio_input: bool = True
    prefill: bool | None = None
    think_tags: bool | None = None

    def reasons(self, effort: str | None) -> bool | None:
        """Whether the model reasons in a request with this `reasoning_effort`; None: unknown.

        Args:
            effort: The effort of the request, None if it sets none.
        """
        if not self.reasoning or self.thinking in ("none", "fixed"):
            return self.reasoning
        used = effort or self.default_effort
        return None if used is None else used != "none"


class ModelRow(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A model of a provider, with its limits, price and capabilities.

    `id` is our name and `name` the name on the wire. `context_window` and `max_output_tokens` are in tokens. None means
    unknown.

    Attributes:
        status: `beta`, `deprecated` (it ends) or `retired` (it has ended, on the day of the data).
        retires: The day on which the provider ends the model, as `2027-01-14`; None: none is announced.
        successor: The model that the provider recommends instead; empty: none is known.
    """

    id: str
    name: str
    provider: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    status: Literal["beta", "deprecated", "retired"] | None = None
    retires: str | None = None
    successor: str = ""
    price: Price | None = None
    capabilities: Capabilities = Capabilities()

    def status_on(self, day: str) -> Literal["beta", "deprecated", "retired"] | None:
        """Return the status on a day such as `2026-11-30`: a model has ended from the day in `retires` on."""
        return "retired" if self.retires is not None and day >= self.retires else self.status

    def on(self, day: str) -> ModelRow:
        """Return the row with the status and the prices that hold on a day such as `2026-11-30`."""
        status = self.status_on(day)
        price = self.price and self.price.on(day)
        is_same = status == self.status and price is self.price
        return self if is_same else msgspec.structs.replace(self, status=status, price=price)


class Quirks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Differences between a host and the API that it implements.

    Attributes:
        usage_option: `stream_options.include_usage` is supported.
        max_tokens_field: The name of the field for `max_new_tokens`.
        file_urls: Documents by URL are supported.
        developer_role: The role `developer` is supported; otherwise such messages are sent as `system`.
        reasoning_field: The field of a message in which reasoning is sent back; `content`: as tags in the text; empty:
            reasoning is not sent back.
        reasoning_required: Assistant messages with tool calls must have the reasoning field; it is sent empty if the
            reasoning is unknown, as that of another model.
        forces_tools_while_reasoning: `tool_choice` may force a tool call while the model reasons.
        prefill_echo: An answer that continues the last message repeats the text of that message at its start.
        prefill_path: Path, at the row's base URL, of requests in which the model continues the last message, which gets
            the field `prefix`; empty: as other requests.
        think_tags: The text of answers starts with the reasoning, between `<think>` and `</think>`, or between tags
            named `reasoning` or `thought`.
        tagged_models: Parts of the names of the models to which `think_tags` applies; empty: all.
        finish_reasons: Each complete answer has a finish reason or usage. If false, the end mark alone ends an answer.
        effort_field: The field for `reasoning_effort`: the field of that name, an object `reasoning`, or one of the
            switches `thinking` and `enable_thinking`.
        rejects: Parameters that are rejected, by their names in `SamplingParams`; also `tools`, `output` and `name`.
        plain_while_reasoning: A model that reasons, or may do so, also answers requests that ask for no stream.
        max_plain_tokens: The largest `max_new_tokens` of requests that ask for no stream; None: any.
        anthropic_version: The value of the field `anthropic_version`, sent in the body of a Messages request in place
            of the model's name; empty: not sent.
    """

    usage_option: bool = True
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    file_urls: bool = False
    developer_role: bool = True
    reasoning_field: Literal["", "reasoning_content", "reasoning", "content"] = ""
    reasoning_required: bool = False
    forces_tools_while_reasoning: bool = True
    prefill_echo: bool = False
    prefill_path: str = ""
    think_tags: bool = False
    tagged_models: tuple[str, ...] = ()
    finish_reasons: bool = True
    effort_field: Literal["reasoning_effort", "reasoning", "thinking", "enable_thinking"] = "reasoning_effort"
    rejects: tuple[str, ...] = ()
    plain_while_reasoning: bool = True
    max_plain_tokens: int | None = None
    anthropic_version: str = ""


class UrlVariable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variable in a base URL that depends on the user: a region, a project, a resource.

    Attributes:
        env: Environment variables with the value; the first one that is set is used.
        of: The variable from which the value is derived instead.
        values: The value by the value of that other variable.
        default: The value if no source has one; may contain other variables. Empty: the user must set a value.
    """

    env: tuple[str, ...] = ()
    of: str = ""
    values: dict[str, str] = {}
    default: str = ""


class ToolFee(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provider charges for the use of one of its own tools, in addition to tokens.

    Attributes:
        tool: The tool, as `Usage.tool_uses` names it.
        usd: US dollars; 0: the tool costs tokens only.
        per: A fee for each use, or one fee for each request that used the tool.
        models: Start of the names of the models that the fee applies to; empty: all. The first fee that fits applies.
    """

    tool: str
    usd: float
    per: Literal["use", "request"] = "use"
    models: str = ""


class ProviderRow(HidingStruct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider that serves models: its address, its authentication and its wire API.

    Attributes:
        id: Our name, the part before the colon in `provider:model`.
        aliases: Names of the provider in other libraries, which are understood in `provider:model` too.
        otel_name: OpenTelemetry's `gen_ai.provider.name`.
        adapter: Name of the wire API.
        base_url: URL without a trailing slash; empty if it must come from the environment or an argument. `{name}`
            stands for a variable of `places`.
        base_url_env, key_env: Environment variables with URL and key; the first one that is set is used.
        bearer_env: Those of `key_env` whose value is sent as a bearer token, whatever `auth` is.
        places: The variables in the base URL.
        path, stream_path: Paths for plain and streamed answers, relative to the base URL, in place of the wire API's
            own. `{model}` stands for the model's name; without a `stream_path` both are the same.
        query: Query parameters sent with every request.
        headers: Headers sent with every request.
        auth: The way in which the key is sent. `bearer`: as a bearer token. `header`: in `key_header`. `optional`: as a
            bearer token, if there is a key. `none`: never. `sigv4`: a key is sent as a bearer token; without a key the
            request is signed with AWS credentials. `google`: a key is sent in `key_header`; without a key a token of
            Google's Application Default Credentials is sent.
        key_header: Name of the header with the key.
        signs_for: The AWS service in the scope of a signature.
        opaque_as: Name under which opaque data (signatures, encrypted reasoning) is exchanged with other providers
            that accept it; empty: only this provider accepts its own data.
        prompt_cache: `explicit`: prompts are cached where the request asks for it; `automatic`: always; `none`: never,
            or unknown.
        counts_max_tokens: Whether rate limits count the maximum length of an answer instead of its real length:
            `never`, `until_end` (corrected at its end) or `always`.
        bills_abandoned: An answer is generated and billed to its end even if its reader closes the connection. The
            gateway reads such an answer to its end after its client has left: only the end has the real usage.
        tool_fees: Fees for the use of the provider's own tools.
        region_factors: What all token prices are multiplied by, by the region that served the request.
        has_responses: The host has the Responses API too, at the same base URL; calls that Chat Completions rejects and
            the Responses API accepts are sent through that one.
        counts_tokens: Whether the host has the endpoint of its wire API that counts the tokens of a prompt.
        batch_api: Name of the API for batches that are answered within a day at half the price; empty: none.
        quirks: Differences from the wire API.
    """

    id: str
    otel_name: str
    adapter: str
    base_url: str
    aliases: tuple[str, ...] = ()
    base_url_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    bearer_env: tuple[str, ...] = ()
    places: dict[str, UrlVariable] = {}  # noqa: RUF012 - msgspec copies it
    path: str = ""
    stream_path: str = ""
    query: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    headers: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    auth: Literal["bearer", "header", "optional", "google", "sigv4", "none"] = "bearer"
    key_header: str = ""
    signs_for: str = ""
    opaque_as: str = ""
    prompt_cache: Literal["explicit", "automatic", "none"] = "none"
    counts_max_tokens: CountsMaxTokens = "never"
    bills_abandoned: bool = False
    tool_fees: tuple[ToolFee, ...] = ()
    region_factors: dict[str, float] = {}  # noqa: RUF012 - msgspec copies it
    has_responses: bool = False
    counts_tokens: bool = False
    batch_api: str = ""
    quirks: Quirks = Quirks()

    def __repr__(self) -> str:
        # Without headers and query, which may hold a key in a row of the user.
        return f"ProviderRow({self.id!r}, {self.adapter!r} at {shown_url(self.base_url)!r})"

    @property
    def address_env(self) -> tuple[str, ...]:
        """The environment variables that determine the URL of requests."""
        return (*self.base_url_env, *(name for place in self.places.values() for name in place.env))

    @property
    def opaque_owner(self) -> str:
        """The provider name in `ProviderPart` and `ProviderDataPart` for opaque data of this provider."""
        return self.opaque_as or self.id
