"""Every option, said once."""

from __future__ import annotations

import builtins
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Protocol, TypeAlias, get_args

import msgspec

from lm_deluge.errors import ConfigurationError

__all__ = [
    "DEFAULT_FIRST_TOKEN_S",
    "REASONING_FIRST_TOKEN_S",
    "ClientOptions",
    "LocalCache",
    "OnBreak",
    "PromptCache",
    "SamplingParams",
    "Secret",
    "Timeouts",
    "check_range",
]

DEFAULT_FIRST_TOKEN_S = 120.0
REASONING_FIRST_TOKEN_S = 600.0

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
PromptCache = Literal[
    "tools_only", "system_and_tools", "last_user_message", "last_2_user_messages", "last_3_user_messages"
]
"""What of a prompt the provider is to keep for the next call; the messages of the user include all before them."""
OnBreak = Literal["raise", "restart", "continue"]
"""What is done about a stream that dies after its first delta."""


class LocalCache(Protocol):
    """Where answers are kept that need not be asked for again. Whatever it raises is a warning and a miss."""

    async def get(self, key: str) -> bytes | None:
        """Return what was put under a key of 64 hexadecimal digits, None where nothing is."""
        ...

    async def put(self, key: str, value: bytes) -> None:
        """Keep a value, as long as it likes; the value is JSON."""
        ...


CacheOption: TypeAlias = bool | str | os.PathLike[str] | LocalCache | None


class Secret:
    """A key that never prints: `repr`, `str`, formatting and pickles of it show nothing."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key itself, for the one place that puts it on the wire."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('...')"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Secret is not pickled; pass the key again where it is needed")


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Raise a ConfigurationError that names the option where its value is no number of that range, nor None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        bounds = f"between {low:g} and {high:g}" if high < math.inf else f"{low:g} or more"
        raise ConfigurationError(f"{name}={value!r} is not a number {bounds}")


def _check_whole(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigurationError(f"{name}={value!r} is not an integer")


def _check_type(name: str, value: Any, kind: type, what: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{name} is not {what}, but {type(value).__name__}")


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise ConfigurationError(f"{name}={value!r} is none", hint=f"Known: {', '.join(known)}.")


def _check_hedge(value: Any, max_attempts: int) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not is_number and not (isinstance(value, str) and re.fullmatch("p[5-9][0-9]", value, re.ASCII)):
        raise ConfigurationError(
            f"hedge_after={value!r} is neither a number of seconds above 0 nor a percentile",
            hint='Percentiles go from "p50" to "p99".',
        )
    if max_attempts == 1:
        raise ConfigurationError("hedge_after needs a second attempt", hint="Set max_attempts to 2 or more.")


def _check_cache(cache: Any) -> None:
    if cache is None or isinstance(cache, bool | os.PathLike) or (isinstance(cache, str) and cache):
        return
    from inspect import iscoroutinefunction

    if not all(iscoroutinefunction(getattr(cache, name, None)) for name in ("get", "put")):
        raise ConfigurationError(
            "local_cache is neither True, nor a path, nor an object with the async methods get and put"
        )


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the model is to answer. What is None is not sent: the provider's default holds.

    Attributes:
        temperature: From 0 to 2.
        top_p: Nucleus sampling, from 0 to 1.
        max_new_tokens: Most tokens to generate, reasoning included.
        stop: Up to the API's number of texts at which generation ends.
        seed: For providers that try to be deterministic.
        presence_penalty: From -2 to 2.
        frequency_penalty: From -2 to 2.
        reasoning_effort: `none minimal low medium high xhigh max`; models take different subsets.
        json_mode: The answer is to be one JSON object; the prompt must say so too.
        logprobs: Ask for log probabilities of the generated tokens.
        top_logprobs: How many alternatives for each, 0 to 20; implies `logprobs`.
        tool_choice: `auto`, `none`, `required`, or the name of the tool that must be called.
        parallel_tool_calls: Whether one answer may call several tools.
        service_tier: The provider's word, `flex` or `priority` for example.
        verbosity: `low`, `medium` or `high`, for models that know it.

    Raises:
        ConfigurationError: A value is out of its range.
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
        _check_whole("max_new_tokens", self.max_new_tokens)
        check_range("presence_penalty", self.presence_penalty, -2, 2)
        check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        check_range("top_logprobs", self.top_logprobs, 0, 20)
        _check_whole("top_logprobs", self.top_logprobs)
        _check_whole("seed", self.seed)
        if self.stop is not None:
            texts = tuple(self.stop) if isinstance(self.stop, tuple | list) else (self.stop,)
            if not texts or not all(isinstance(text, str) and text for text in texts):
                raise ConfigurationError("stop must be one or more texts that are not empty")
            msgspec.structs.force_setattr(self, "stop", texts)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Separate clocks, in seconds. None turns a clock off.

    Attributes:
        connect: Until the connection stands, TLS included.
        first_token: From the request until the first piece of text, reasoning or tool call. Left alone it is
            120, and 600 for reasoning models, which may think in silence.
        idle: After the first token: without any byte. Keep-alive comments count as life here.
        progress: Without any piece of the answer, while keep-alives or empty events arrive: pings alone do
            not live for ever.
        total: For the whole call from its first request on, retries included. Off by default: a long answer that
            flows is no fault.

    Clocks run only while the library waits for the network; a slow consumer does not trip them.
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
        """Return the same clocks with `first_token` settled for the kind of model."""
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


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The keyword arguments of `LLMClient`, beside the fields of `SamplingParams`, which it takes too.

    Attributes:
        api_key: The key; left alone, the provider's environment variable is read when the first call is made.
        base_url: Where an OpenAI-compatible host is; left alone, the provider's environment variable or row.
        sampling_params: Defaults for every call; a call's own win field by field.
        timeouts: The clocks of each attempt.
        max_attempts: Requests per call at most.
        on_break: What is done about a stream that dies after its first token: `raise`; `restart`: the answer begins
            anew behind an `Attempt` event; `continue`: the model goes on where it broke, as one answer, and where
            that is not safe the break is raised. Left alone, streams raise, and batches, whose beginnings nobody has
            seen, restart. With `background` a stream goes on where it broke in any case.
        fallback: Models that are asked where none of the client's own can answer, and that is not the request's fault.
        hedge_after: Where an attempt has brought nothing after so many seconds, another one begins beside it, at
            another model of the client where one can take the call; the first to speak is kept, the other is closed at
            once. "p95", or another percentile from "p50" to "p99": of the times that the model took to its first token
            lately, once twenty are known. Both attempts are billed, and both count.
        max_retry_after_s: A provider that wants a longer wait than this is not waited for: its error is raised.
        min_tokens_per_second: An attempt that is slower is given up for another one, elsewhere where there is one, as
            long as nothing of it was handed out: batches are watched to the end of each answer, streams until sixteen
            tokens or a second have come. The last of the `max_attempts` may be as slow as it is.
        max_cost: US dollars that all calls of the client together may cost. A stream is stopped when they are spent,
            with a `BudgetError` that has what came, and nothing more is sent. Costs of what is under way are estimated.
        postprocess: Called with each answer of a batch that is no error; what it returns takes the answer's place.
        max_event_bytes: Largest single event of a stream.
        max_requests_per_minute, max_tokens_per_minute, max_input_tokens_per_minute, max_output_tokens_per_minute: What
            all calls together may use in any minute, over all models; None: what the providers allow, as far as
            they say.
        model_limits: The same limits, and `max_concurrent_requests`, of single models beside those of the client, by
            their names: `{"gpt-4o": {"max_requests_per_minute": 500}}`. A provider's own word lowers them only.
        max_concurrent_requests: Calls that may be under way at once, single streams included. Left alone, each batch
            has up to 200 under way or waiting, and nothing holds single streams.
        model_weights: How calls are shared out among several models, in their order; all alike by default.
        progress: How a batch is shown while it runs: `rich`, `tqdm`, `plain` or `none`. The first writes lines where
            there is no terminal.
        background: The provider goes on when the connection dies, and the stream is taken up again where it broke;
            a stream that is left is ended at the provider too. Only the Responses API can do it. The provider
            keeps the answer for a while.
        extra_headers: Sent with every request; they win over ours.
        extra_body: Merged into the request's JSON; wins over ours.
        proxy: URL of an HTTP proxy; left alone, the usual environment variables hold.
        local_cache: Keeps answers and plays them again where the same is asked: True for a file in the user's cache
            folder, the path of a file, or a `LocalCache`. It has nothing to do with the provider's prompt cache.

    Raises:
        ConfigurationError: A value is out of its range or of a wrong type.
    """

    api_key: str | None = None
    base_url: str | None = None
    sampling_params: SamplingParams = SamplingParams()
    timeouts: Timeouts = Timeouts()
    max_attempts: int = 5
    on_break: OnBreak | None = None
    fallback: str | tuple[str, ...] | list[str] = ()
    hedge_after: float | str | None = None
    max_retry_after_s: float = 120.0
    min_tokens_per_second: float | None = None
    max_cost: float | None = None
    postprocess: Callable[[Any], Any] | None = None
    max_event_bytes: int = 16 * 2**20
    max_requests_per_minute: float | None = None
    max_tokens_per_minute: float | None = None
    max_input_tokens_per_minute: float | None = None
    max_output_tokens_per_minute: float | None = None
    model_limits: Mapping[str, Mapping[str, float]] | None = None
    max_concurrent_requests: int | None = None
    model_weights: tuple[float, ...] | list[float] | None = None
    progress: Literal["rich", "tqdm", "plain", "none"] | None = "rich"
    background: bool = False
    extra_headers: Mapping[str, str] | None = None
    extra_body: Mapping[str, Any] | None = None
    proxy: str | None = None
    local_cache: CacheOption = None

    def __post_init__(self) -> None:
        check_range("max_attempts", self.max_attempts, 1, 1_000)
        _check_whole("max_attempts", self.max_attempts)
        _check_hedge(self.hedge_after, self.max_attempts)
        check_range("max_retry_after_s", self.max_retry_after_s, 0, math.inf)
        check_range("min_tokens_per_second", self.min_tokens_per_second, 0.01, 100_000)
        check_range("max_cost", self.max_cost, 0, math.inf)
        if self.postprocess is not None and not callable(self.postprocess):
            raise ConfigurationError("postprocess is no function")
        check_range("max_event_bytes", self.max_event_bytes, 1_024, 2**31)
        _check_whole("max_event_bytes", self.max_event_bytes)
        for name in LIMIT_NAMES:
            check_range(name, getattr(self, name), 1, math.inf)
        _check_model_limits(self.model_limits)
        check_range("max_concurrent_requests", self.max_concurrent_requests, 1, 100_000)
        _check_whole("max_concurrent_requests", self.max_concurrent_requests)
        for name in ("api_key", "base_url", "proxy"):
            _check_type(name, getattr(self, name), str, "text")
        for name in ("extra_headers", "extra_body"):
            _check_type(name, getattr(self, name), Mapping, "a mapping")
        _check_type("background", self.background, bool, "True or False")
        _check_choice("on_break", self.on_break, get_args(OnBreak))
        _check_cache(self.local_cache)
        if not isinstance(self.sampling_params, SamplingParams):
            raise ConfigurationError("sampling_params is not a SamplingParams")
        if not isinstance(self.timeouts, Timeouts):
            raise ConfigurationError("timeouts is not a Timeouts; write timeouts=Timeouts(idle=30), for example")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigurationError("base_url must begin with http:// or https://")

    def check_models(self, models: Collection[str]) -> None:
        """Check that limits are set for models only that the client has.

        Raises:
            ConfigurationError: One is for another model; the nearest is in it.
        """
        for model in self.model_limits or {}:
            if model not in models:
                raise unknown_option(str(model), builtins.set(models), "model_limits", "model")

    def __repr__(self) -> str:
        shown = ("base_url", "timeouts", "max_attempts", "max_retry_after_s")  # the rest may hold keys
        return f"ClientOptions({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> ClientOptions:
        """Build options from keyword arguments, the fields of `SamplingParams` among them.

        Raises:
            ConfigurationError: A keyword is unknown (with the nearest known one), or a value is wrong.
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
    _check_type("model_limits", limits, Mapping, "a mapping")
    for model, named in (limits or {}).items():
        where = f"model_limits[{model!r}]"
        _check_type(where, named, Mapping, "a mapping")
        for name, amount in named.items():
            if name not in (*LIMIT_NAMES, "max_concurrent_requests"):
                raise unknown_option(name, builtins.set((*LIMIT_NAMES, "max_concurrent_requests")), where)
            check_range(f"{where}[{name!r}]", amount, 1, math.inf)
        _check_whole(f"{where}['max_concurrent_requests']", named.get("max_concurrent_requests"))


def unknown_option(
    name: str, known: builtins.set[str] | frozenset[str], where: str = "", kind: str = "option"
) -> ConfigurationError:
    """Return the error for an option that does not exist, naming the nearest one that does."""
    import difflib

    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known {kind}s: {', '.join(sorted(known))}."
    return ConfigurationError(f"there is no {kind} {name!r}{where and f' for {where}'}", hint=hint)
