"""All options of clients and calls, each defined once."""

from __future__ import annotations

import builtins
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

import msgspec

from lm_deluge.errors import ConfigurationError
from lm_deluge.hidden import HidingStruct, shown_url
from lm_deluge.option_checks import (
    check_cache,
    check_choice,
    check_hedge,
    check_keys,
    check_limiter,
    check_observers,
    check_per_provider,
    check_range,
    check_type,
    check_whole,
)

__all__ = [
    "DEFAULT_FIRST_TOKEN_S",
    "REASONING_FIRST_TOKEN_S",
    "ApiKeys",
    "BearerToken",
    "ClientOptions",
    "Collect",
    "LocalCache",
    "OnBreak",
    "PerProvider",
    "Priority",
    "PromptCache",
    "SamplingParams",
    "Secret",
    "Timeouts",
    "unknown_option",
]

DEFAULT_FIRST_TOKEN_S = 120.0
"""Long enough for a long prompt at a busy provider, short enough that a stuck request is retried within minutes."""
REASONING_FIRST_TOKEN_S = 600.0
"""The default of OpenAI's own SDK (https://github.com/openai/openai-python#timeouts): models may think in silence."""

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
PromptCache = Literal[
    "tools_only", "system_and_tools", "last_user_message", "last_2_user_messages", "last_3_user_messages"
]
"""The part of a prompt that the provider caches for the next call. User messages include everything before them."""
OnBreak = Literal["raise", "restart", "continue"]
"""The reaction to a connection that breaks after the first delta of a stream."""

Collect = Literal["stream", "plain", "auto"]
"""How the answers of calls are requested of which only the response is used."""
Priority = Literal["interactive", "batch"]
"""Which of the calls that wait for the limits of a client goes first: one that a user waits for, or one of a batch."""


class LocalCache(Protocol):
    """Protocol of a response cache. Exceptions become warnings and count as misses."""

    async def get(self, key: str) -> bytes | None:
        """Return the stored value of a key (64 hexadecimal digits), or None."""
        ...

    async def put(self, key: str, value: bytes) -> None:
        """Store a value, which is JSON text. The cache decides how long to keep it."""
        ...


PerProvider: TypeAlias = str | Mapping[str, str] | None
ApiKeys: TypeAlias = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""One text for the only provider of a client, or texts by provider."""
CacheOption: TypeAlias = bool | str | os.PathLike[str] | LocalCache | None


class Secret:
    """A key that is never printed: `repr`, `str` and formatting hide it, and it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key itself, for the code that writes it into a request."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('...')"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Secret cannot be pickled; pass the key again where it is needed")


class BearerToken(Secret):
    """A token that is sent as `Authorization: Bearer`, even to a provider that has a header of its own for keys."""

    __slots__ = ()


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of generation. A parameter that is None is not sent, so the provider's default applies.

    Attributes:
        temperature: From 0 to 2.
        top_p: Nucleus sampling, from 0 to 1.
        max_new_tokens: Maximum number of tokens to generate, reasoning included.
        stop: Texts at which generation ends; APIs limit their number.
        seed: Seed of random sampling, for providers that support it.
        presence_penalty: From -2 to 2.
        frequency_penalty: From -2 to 2.
        reasoning_effort: `none minimal low medium high xhigh max`; each model supports some of these.
        json_mode: The answer must be one JSON object; the prompt must ask for JSON too.
        logprobs: Return log probabilities of the generated tokens.
        top_logprobs: Number of alternatives for each token, 0 to 20; implies `logprobs`.
        tool_choice: `auto`, `none`, `required`, or the name of the tool that must be called.
        parallel_tool_calls: Whether one answer may call several tools.
        service_tier: The provider's name of a tier, `flex` or `priority` for example.
        verbosity: `low`, `medium` or `high`, for models that support it.

    Raises:
        ConfigurationError: A value is out of its range.

    Example:
        >>> params = SamplingParams(temperature=0.2, max_new_tokens=500)
        >>> client.stream("Hello", sampling_params=params)
    """

    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    stop: str | tuple[str, ...] | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: ReasoningEffort | None = None
    json_mode: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    service_tier: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0, 2)
        check_range("top_p", self.top_p, 0, 1)
        check_range("max_new_tokens", self.max_new_tokens, 1, math.inf)
        check_whole("max_new_tokens", self.max_new_tokens)
        check_range("presence_penalty", self.presence_penalty, -2, 2)
        check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        check_range("top_logprobs", self.top_logprobs, 0, 20)
        check_whole("top_logprobs", self.top_logprobs)
        check_whole("seed", self.seed)
        if self.stop is not None:
            texts = tuple(self.stop) if isinstance(self.stop, tuple | list) else (self.stop,)
            if not texts or not all(isinstance(text, str) and text for text in texts):
                raise ConfigurationError("stop must be one or more texts that are not empty")
            msgspec.structs.force_setattr(self, "stop", texts)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Separate timeouts, in seconds. None turns a timeout off.

    Attributes:
        connect: Until the connection is established, TLS included.
        first_token: From the request until the first piece of text, reasoning or tool call. "auto" is 120, and 600
            for reasoning models, which may send nothing while they think.
        idle: After the first token, without receiving any byte. Keep-alive comments reset it.
        progress: After the first token, without receiving any piece of the answer. Keep-alives and empty events do
            not reset it, so a server that only sends pings is not waited for indefinitely.
        total: For the whole call from its first request on, retries included. Off by default: a long answer that
            keeps arriving is not an error.

    Timeouts run only while the library waits for the network, so a slow consumer does not trigger them.

    Raises:
        ConfigurationError: A value is neither a positive number nor None.

    Example:
        >>> client = LLMClient("gpt-5.4", timeouts=Timeouts(first_token=30, total=300))
    """

    connect: float | None = 10.0
    first_token: float | Literal["auto"] | None = "auto"  # noqa: S105
    idle: float | None = 60.0
    progress: float | None = 300.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None or (value == "auto" and name == "first_token"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(f"Timeouts.{name}={value!r} is not a number of seconds above 0, nor None")

    def for_model(self, *, is_reasoning: bool) -> Timeouts:
        """Return the timeouts with "auto" replaced by the number of seconds for this kind of model."""
        if self.first_token != "auto":  # noqa: S105
            return self
        return msgspec.structs.replace(
            self, first_token=REASONING_FIRST_TOKEN_S if is_reasoning else DEFAULT_FIRST_TOKEN_S
        )


LIMIT_NAMES = (
    "max_requests_per_minute",
    "max_tokens_per_minute",
    "max_input_tokens_per_minute",
    "max_output_tokens_per_minute",
)
SAMPLING_NAMES = frozenset(SamplingParams.__struct_fields__)


class ClientOptions(HidingStruct, frozen=True, kw_only=True):
    """The keyword arguments of `LLMClient`, which also accepts the fields of `SamplingParams`.

    Attributes:
        api_key: The key, or keys by provider if the client has several: `{"gemini": "...", "cohere": "..."}`. A list of
            keys of one provider shares the calls among them. By default each provider's environment variable is read
            at the first call.
        base_url: URL of the provider or of an OpenAI-compatible host, or URLs by provider. By default the provider's
            environment variable or registry row.
        sampling_params: Defaults for every call; a field that a call sets itself overrides the default.
        timeouts: The timeouts of each attempt.
        max_attempts: Maximum number of requests per call.
        on_break: The reaction to a connection that breaks after the first token. `raise`: raise the error. `restart`:
            send the request again; an `Attempt` event marks where the new answer begins. `continue`: let the model
            continue its text, as one answer; where that is not safe the error is raised. By default streams raise, and
            batches, which have not delivered any part of the answer, restart. With `background` a stream always
            resumes where it broke.
        fallback: Models to call after all models of the client failed, unless the request itself was rejected.
        fallback_on_context: A prompt that is too long for one model goes to another one of the client (`fallback`
            included) with a larger context window: after the provider refused it as too long, and before anything is
            sent if its estimated tokens are more than twice the window. If it is that much too long for all, the call
            fails with a `ContextLengthError`, and nothing is sent.
        hedge_after: Seconds without a first token after which a second attempt starts in parallel, at another model of
            the client if one is able to take the call. The first attempt to produce a token is kept, the other one is
            closed at once. "p50" to "p99" are percentiles of the model's recent times to first token, used once
            twenty are known. Both attempts are billed and count towards limits and `max_attempts`.
        max_retry_after_s: Longest wait that a provider's `retry-after` may ask for; beyond it the error is raised.
        min_tokens_per_second: A slower attempt is cancelled and repeated, at another model if there is one, as long as
            nothing of it was delivered: batches are checked until the end of each answer, streams until
            sixteen tokens or one second of the answer have arrived. The last of `max_attempts` is never cancelled.
        max_cost: US dollars that all calls of the client together may cost. Once they are spent, nothing more is sent
            and running streams stop with a `BudgetError`, whose `partial` is the answer so far. Costs of running calls
            are estimates.
        collect: How batches request their answers, of which nothing is shown before the end. `stream`: as streams.
            `plain`: as one document each, for a fraction of the CPU time, wherever model and options allow it. `auto`:
            as documents if they are expected well within the timeouts, else as streams.
        postprocess: Function called with each successful response of a batch; its result replaces the response.
        max_event_bytes: Size limit of a single event of a stream.
        max_requests_per_minute, max_tokens_per_minute, max_input_tokens_per_minute, max_output_tokens_per_minute: Limit
            of all calls together in any minute, over all models; None: the limits that providers report in their
            headers.
        model_limits: The same limits, and `max_concurrent_requests`, of single models, in addition to those of the
            client: `{"gpt-5.4": {"max_requests_per_minute": 500}}`. Limits that a provider reports can only lower them.
        limiter: URL of a Redis or Valkey server (`redis://`, `rediss://` or `unix://`) whose users share their limits,
            those that responses show included. By default the limits are those of this client alone.
        max_concurrent_requests: Maximum number of calls in progress, single streams included. By default each batch has
            up to 200 calls in progress or waiting, and single streams are not limited.
        model_weights: The share of the calls for each of several models, in their order; equal by default.
        progress: Display of a running batch: `rich`, `tqdm`, `plain` or `none`. `rich` writes lines where there is no
            terminal.
        background: The provider continues to generate while the connection is broken, and the stream resumes where it
            broke. Cancelling the stream cancels the answer at the provider too. Only the Responses API supports this;
            the provider stores the answer for some time.
        extra_headers: Headers sent with every request; they override the library's own.
        extra_body: Merged into the JSON of every request; overrides the library's own fields.
        proxy: URL of an HTTP proxy. By default the usual environment variables apply.
        local_cache: Store answers and return them again for equal requests: True for a file in the user's cache folder,
            the path of a file, or a `LocalCache`. Not related to the provider's prompt cache.
        observers: What watches the calls, for traces, metrics or your own code: objects of `telemetry.Observer`.

    Raises:
        ConfigurationError: A value is out of its range or of a wrong type.
    """

    api_key: ApiKeys = None
    base_url: PerProvider = None
    sampling_params: SamplingParams = SamplingParams()
    timeouts: Timeouts = Timeouts()
    max_attempts: int = 5
    on_break: OnBreak | None = None
    fallback: str | tuple[str, ...] | list[str] = ()
    fallback_on_context: bool = True
    hedge_after: float | str | None = None
    max_retry_after_s: float = 120.0
    min_tokens_per_second: float | None = None
    max_cost: float | None = None
    collect: Collect = "stream"
    postprocess: Callable[[Any], Any] | None = None
    max_event_bytes: int = 16 * 2**20
    max_requests_per_minute: float | None = None
    max_tokens_per_minute: float | None = None
    max_input_tokens_per_minute: float | None = None
    max_output_tokens_per_minute: float | None = None
    model_limits: Mapping[str, Mapping[str, float]] | None = None
    limiter: str | None = None
    max_concurrent_requests: int | None = None
    model_weights: tuple[float, ...] | list[float] | None = None
    progress: Literal["rich", "tqdm", "plain", "none"] | None = "rich"
    background: bool = False
    extra_headers: Mapping[str, str] | None = None
    extra_body: Mapping[str, Any] | None = None
    proxy: str | None = None
    local_cache: CacheOption = None
    observers: Sequence[Any] = ()

    def __post_init__(self) -> None:
        check_range("max_attempts", self.max_attempts, 1, 1_000)
        check_whole("max_attempts", self.max_attempts)
        check_hedge(self.hedge_after, self.max_attempts)
        check_range("max_retry_after_s", self.max_retry_after_s, 0, math.inf)
        check_range("min_tokens_per_second", self.min_tokens_per_second, 0.01, 100_000)
        check_range("max_cost", self.max_cost, 0, math.inf)
        if self.postprocess is not None and not callable(self.postprocess):
            raise ConfigurationError("postprocess is not a function")
        check_range("max_event_bytes", self.max_event_bytes, 1_024, 2**31)
        check_whole("max_event_bytes", self.max_event_bytes)
        for name in LIMIT_NAMES:
            check_range(name, getattr(self, name), 1, math.inf)
        _check_model_limits(self.model_limits)
        check_range("max_concurrent_requests", self.max_concurrent_requests, 1, 100_000)
        check_whole("max_concurrent_requests", self.max_concurrent_requests)
        check_type("proxy", self.proxy, str, "text")
        check_limiter(self.limiter)
        check_keys(self.api_key)
        check_per_provider("base_url", self.base_url)
        for name in ("extra_headers", "extra_body"):
            check_type(name, getattr(self, name), Mapping, "a mapping")
        check_type("background", self.background, bool, "True or False")
        check_choice("on_break", self.on_break, get_args(OnBreak))
        check_choice("collect", self.collect, get_args(Collect))
        check_cache(self.local_cache)
        check_observers(self.observers)
        if not isinstance(self.sampling_params, SamplingParams):
            raise ConfigurationError("sampling_params is not a SamplingParams")
        if not isinstance(self.timeouts, Timeouts):
            raise ConfigurationError("timeouts is not a Timeouts; write timeouts=Timeouts(idle=30), for example")
        urls = self.base_url.values() if isinstance(self.base_url, Mapping) else (self.base_url,)
        if not all(url is None or url.startswith(("http://", "https://")) for url in urls):
            raise ConfigurationError("base_url must begin with http:// or https://")

    def check_models(self, models: Collection[str]) -> None:
        """Check that `model_limits` names only models of the client.

        Raises:
            ConfigurationError: A name is unknown; the message suggests the most similar one.
        """
        for model in self.model_limits or {}:
            if model not in models:
                raise unknown_option(str(model), builtins.set(models), "model_limits", "model")

    def __repr__(self) -> str:
        url = self.base_url
        shown_urls = {name: shown_url(each) for name, each in url.items()} if isinstance(url, Mapping) else url
        fields = [f"base_url={shown_url(url) if isinstance(url, str) else shown_urls!r}"]
        fields += [f"{name}={getattr(self, name)!r}" for name in ("timeouts", "max_attempts", "max_retry_after_s")]
        return f"ClientOptions({', '.join(fields)})"  # the other fields may hold keys

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> ClientOptions:
        """Build options from keyword arguments, the fields of `SamplingParams` among them.

        Raises:
            ConfigurationError: A keyword is unknown (the message suggests the most similar one), or a value is wrong.
        """
        own_names = set(cls.__struct_fields__)
        unknown = [name for name in keywords if name not in own_names and name not in SAMPLING_NAMES]
        if unknown:
            raise unknown_option(unknown[0], own_names | SAMPLING_NAMES)
        own = {name: value for name, value in keywords.items() if name in own_names}
        sampling = {name: value for name, value in keywords.items() if name in SAMPLING_NAMES}
        if sampling:
            own["sampling_params"] = msgspec.structs.replace(own.get("sampling_params") or SamplingParams(), **sampling)
        return cls(**own)


def _check_model_limits(limits: Any) -> None:
    check_type("model_limits", limits, Mapping, "a mapping")
    for model, named in (limits or {}).items():
        where = f"model_limits[{model!r}]"
        check_type(where, named, Mapping, "a mapping")
        for name, amount in named.items():
            if name not in (*LIMIT_NAMES, "max_concurrent_requests"):
                raise unknown_option(name, builtins.set((*LIMIT_NAMES, "max_concurrent_requests")), where)
            check_range(f"{where}[{name!r}]", amount, 1, math.inf)
        check_whole(f"{where}['max_concurrent_requests']", named.get("max_concurrent_requests"))


# Names that other libraries have for an option, and ours.
_OTHER_NAMES = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict"), "max_new_tokens"),
    **dict.fromkeys(("max_retries", "num_retries", "retries"), "max_attempts"),
    **dict.fromkeys(("timeout", "request_timeout"), "timeouts"),
    **dict.fromkeys(("model", "model_name", "engine"), "prefer_model"),
    **dict.fromkeys(("response_format", "response_model", "output_schema", "json_schema", "schema"), "output"),
    **dict.fromkeys(("effort", "reasoning", "thinking"), "reasoning_effort"),
    **dict.fromkeys(("stop_sequences", "stop_words"), "stop"),
    **dict.fromkeys(("functions", "function"), "tools"),
    **dict.fromkeys(("api_base", "endpoint", "host", "url"), "base_url"),
    **dict.fromkeys(("concurrency", "max_concurrency", "max_workers"), "max_concurrent_requests"),
    **dict.fromkeys(("rpm", "requests_per_minute"), "max_requests_per_minute"),
    **dict.fromkeys(("tpm", "tokens_per_minute"), "max_tokens_per_minute"),
    "function_call": "tool_choice",
    "key": "api_key",
    "headers": "extra_headers",
    "body": "extra_body",
    "fallbacks": "fallback",
    "budget": "max_cost",
}
_NOTES = {
    "max_attempts": "It counts the first request, too: max_retries=2 is max_attempts=3.",
    "prefer_model": "It names one of the client's models.",
    "timeouts": "Write timeouts=Timeouts(total=60), for example.",
}
_NO_OPTIONS = {
    "stream": "Every answer is streamed: leave it out.",
    "top_k": 'Write extra_body={"top_k": 40} as an option of LLMClient, where the API supports it.',
    **dict.fromkeys(("system", "system_prompt"), "Put it into the prompt: Conversation.system(...).user(...)."),
    "n": "Send the prompt several times: client.process_prompts_async([prompt] * 3).",
}


def unknown_option(
    name: str, known: builtins.set[str] | frozenset[str], where: str = "", kind: str = "option"
) -> ConfigurationError:
    """Return the error for an option that does not exist; the hint names what to write instead."""
    hint = _hint_for(name, known) if kind == "option" else _nearest(name, known)
    hint = hint or f"Known {kind}s: {', '.join(sorted(known))}."
    return ConfigurationError(f"there is no {kind} {name!r}{where and f' for {where}'}", hint=hint)


def _hint_for(name: str, known: builtins.set[str] | frozenset[str]) -> str:
    meant = _OTHER_NAMES.get(name, name)
    note = f" {_NOTES[meant]}" if meant in _NOTES else ""
    if meant in known:
        return f"Did you mean {meant}?{note}"
    if meant in ClientOptions.__struct_fields__:
        return f"{meant} is an option of LLMClient.{note}"
    return _NO_OPTIONS.get(name) or _nearest(name, known)


def _nearest(name: str, known: builtins.set[str] | frozenset[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"Did you mean {near[0]}?" if near else ""
