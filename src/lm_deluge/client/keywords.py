"""The keyword arguments of `LLMClient` and of its methods, typed: an editor and a type checker know each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

from lm_deluge.agents.options import Approve
from lm_deluge.client.batch.progress_display import ProgressKind
from lm_deluge.client.call_options import Tools
from lm_deluge.config import (
    ApiKeys,
    CacheOption,
    Collect,
    OnBreak,
    PerProvider,
    Priority,
    PromptCache,
    ReasoningEffort,
    SamplingParams,
    Timeouts,
)
from lm_deluge.filters.rules import Filter
from lm_deluge.telemetry.observer import Observer

__all__ = [
    "AgentKeywords",
    "AnswerKeywords",
    "BatchKeywords",
    "CallKeywords",
    "ClientKeywords",
    "CollectKeywords",
    "LibraryKeywords",
    "LoopKeywords",
    "OutputKeywords",
    "ProviderBatchKeywords",
    "SamplingKeywords",
    "StreamKeywords",
    "ToolKeywords",
]


class SamplingKeywords(TypedDict, total=False):
    """The fields of `SamplingParams`, which describes them."""

    temperature: float | None
    top_p: float | None
    max_new_tokens: int | None
    stop: str | tuple[str, ...] | list[str] | None
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    reasoning_effort: ReasoningEffort | None
    json_mode: bool
    logprobs: bool
    top_logprobs: int | None
    tool_choice: str | None
    parallel_tool_calls: bool | None
    service_tier: str | None
    verbosity: Literal["low", "medium", "high"] | None


class OutputKeywords(TypedDict, total=False):
    """What happens to an answer that is not a valid `output`; `CallOptions` describes the fields."""

    max_output_retries: int
    stop_on_invalid: bool
    check_partial: Callable[[Any], object] | None


class ProviderBatchKeywords(SamplingKeywords, total=False):
    """What a provider's own batch takes; `CallOptions` describes the fields."""

    tools: Tools | None
    sampling_params: SamplingParams | None
    output: Any
    cache: PromptCache | None
    filters: Sequence[Filter] | None


class ToolKeywords(TypedDict, total=False):
    """The fields of `LoopOptions` that the methods for agent loops do not name; it describes them."""

    approve: Approve | None
    decisions: Mapping[str, bool] | None
    tool_timeout: float | None
    max_concurrent_tools: int | None
    max_result_characters: int | None


class LoopKeywords(ToolKeywords, total=False):
    """The fields of `LoopOptions`, which describes them."""

    run_tools: bool
    max_rounds: int | None


class StreamKeywords(SamplingKeywords, OutputKeywords, LoopKeywords, total=False):
    """What `stream` and `stream_sync` take beside the arguments that they name; `CallOptions` describes the fields."""

    filters: Sequence[Filter] | None


class CallKeywords(ProviderBatchKeywords, OutputKeywords, LoopKeywords, total=False):
    """What every method takes that calls a model; `CallOptions` describes the fields."""

    prefer_model: str | None
    max_cost: float | None
    priority: Priority | None


class AgentKeywords(SamplingKeywords, OutputKeywords, ToolKeywords, total=False):
    """What the methods for agent loops take in addition to the arguments that they name."""

    sampling_params: SamplingParams | None
    output: Any
    filters: Sequence[Filter] | None
    cache: PromptCache | None
    prefer_model: str | None
    max_cost: float | None
    priority: Priority | None


class AnswerKeywords(SamplingKeywords, OutputKeywords, LoopKeywords, total=False):
    """What `answers` takes in addition to the arguments of its own."""

    sampling_params: SamplingParams | None
    cache: PromptCache | None
    filters: Sequence[Filter] | None
    prefer_model: str | None
    max_cost: float | None
    priority: Priority | None
    collect: Collect | None
    progress: ProgressKind | None
    ask_duplicates_once: bool


class CollectKeywords(CallKeywords, total=False):
    """What the methods take that return responses and no events."""

    collect: Collect | None


class BatchKeywords(CollectKeywords, total=False):
    """What the methods that collect the answers of a batch take in addition."""

    progress: ProgressKind | None
    ask_duplicates_once: bool
    journal: str | PathLike[str] | None
    retry_failed: bool


class ClientKeywords(SamplingKeywords, total=False):
    """The fields of `ClientOptions` and of `SamplingParams`, which describe them."""

    api_key: ApiKeys
    base_url: PerProvider
    sampling_params: SamplingParams
    timeouts: Timeouts
    max_attempts: int
    on_break: OnBreak | None
    fallback: str | tuple[str, ...] | list[str]
    fallback_on_context: bool
    hedge_after: float | str | None
    max_retry_after_s: float
    min_tokens_per_second: float | None
    max_cost: float | None
    collect: Collect
    postprocess: Callable[[Any], Any] | None
    max_event_bytes: int
    max_requests_per_minute: float | None
    max_tokens_per_minute: float | None
    max_input_tokens_per_minute: float | None
    max_output_tokens_per_minute: float | None
    model_limits: Mapping[str, Mapping[str, float]] | None
    limiter: str | None
    max_concurrent_requests: int | None
    model_weights: tuple[float, ...] | list[float] | None
    progress: ProgressKind | None
    background: bool
    extra_headers: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None
    proxy: str | None
    local_cache: CacheOption
    observers: Sequence[Observer]


class LibraryKeywords(ClientKeywords, total=False):
    """What `LLMClient` takes: its options, and the names that they have in the older lm-deluge."""

    model_names: str | list[str]
    fallback_models: str | tuple[str, ...] | list[str]
    cache: CacheOption
    use_responses_api: bool
    stateless_responses: bool | None
