"""Spans and metrics of OpenTelemetry, through its API alone: the program chooses the SDK and the exporters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests.credentials import environment_variable
from lm_deluge.errors import MissingExtraError
from lm_deluge.extras import install_hint
from lm_deluge.option_checks import check_choice
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart
from lm_deluge.response import APIResponse
from lm_deluge.telemetry import content, semconv
from lm_deluge.telemetry.observer import (
    AgentObserver,
    CallObserver,
    ObservedAttempt,
    ObservedCall,
    Observer,
    outcome_of,
)
from lm_deluge.usage import Usage

if TYPE_CHECKING:  # an optional package, imported when the first observer is made
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["CallSpan", "OpenTelemetryObserver", "shared_attributes"]

_CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CONTENT_VALUES = ("true", "1", "span_only", "span_and_event")
_PORTS = {"http": 80, "https": 443}  # RFC 9110, section 4.2


class OpenTelemetryObserver(Observer):
    """Makes a span of each call, and records the metrics of OpenTelemetry's conventions for generative AI.

    The span is a child of the caller's current span and covers the whole call, retries and waits included.

    Args:
        names: The names of metrics: `new`, or `old` for dashboards that know those of
            `opentelemetry-semantic-conventions` 0.66.
        capture_content: Whether spans have prompts, answers and tools; None: if the environment variable
            `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` is `true`, `span_only` or `span_and_event`.
        tracer_provider: Makes the tracer; None: the global one.
        meter_provider: Makes the meter; None: the global one.

    Raises:
        MissingExtraError: `opentelemetry-api` is not installed.
        ConfigurationError: There is no such generation of names.

    Example:
        >>> client = LLMClient("gpt-5.4", observers=[OpenTelemetryObserver()])
    """

    def __init__(
        self,
        *,
        names: semconv.Generation = "new",
        capture_content: bool | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "OpenTelemetryObserver needs opentelemetry-api", hint=install_hint("opentelemetry-api")
            ) from error
        check_choice("names", names, tuple(semconv.GENERATIONS))
        from lm_deluge import __version__

        self.names = semconv.GENERATIONS[names]
        self.captures_content = _captures_content() if capture_content is None else capture_content
        self.tracer = trace.get_tracer("lm_deluge", __version__, tracer_provider)
        self.instruments = _Instruments(metrics.get_meter("lm_deluge", __version__, meter_provider), self.names)
        self.client_kind = trace.SpanKind.CLIENT
        self.error_status = trace.StatusCode.ERROR

    def call_started(self, call: ObservedCall) -> CallObserver:
        """Start the span of a call."""
        return CallSpan(self, call)

    def agent_started(self, call: ObservedCall) -> AgentObserver:
        """Start the span of an agent loop; its calls and tools are children of it."""
        from lm_deluge.telemetry.otel_agents import AgentSpan

        return AgentSpan(self, call)


def _captures_content() -> bool:
    return (environment_variable(_CONTENT_VARIABLE) or "").lower() in _CONTENT_VALUES


class _Instruments:
    """The metrics.

    Args:
        meter: Makes the instruments.
        names: Their names.
    """

    def __init__(self, meter: Any, names: semconv.NameSet) -> None:
        def histogram(name: str | None, unit: str, buckets: tuple[float, ...]) -> Any:
            if name is None:
                return None
            return meter.create_histogram(name, unit=unit, explicit_bucket_boundaries_advisory=buckets)

        self.duration = histogram(names.duration, "s", semconv.SECONDS)
        self.tool_duration = histogram(semconv.TOOL_DURATION, "s", semconv.SECONDS)
        self.agent_duration = histogram(semconv.AGENT_DURATION, "s", semconv.AGENT_SECONDS)
        self.first_chunk = histogram(names.first_chunk, "s", semconv.SECONDS)
        self.output_chunk = histogram(names.output_chunk, "s", semconv.SECONDS)
        self._token_usage = histogram(names.token_usage, "{token}", semconv.TOKENS)
        self._tokens_in = histogram(names.tokens_in, "{token}", semconv.TOKENS)
        self._tokens_out = histogram(names.tokens_out, "{token}", semconv.TOKENS)
        self._usage = {kind: meter.create_counter(name, unit="{token}") for kind, name in names.usage.items()}

    def record_usage(self, usage: Usage | None, attributes: Mapping[str, Any], call: Call | None) -> None:
        """Record the tokens that the provider reported; without a report 0 of an unknown kind."""
        if usage is not None and usage.estimated:
            usage = None
        if usage is not None:
            for histogram, tokens in ((self._tokens_in, usage.input_tokens), (self._tokens_out, usage.output_tokens)):
                if histogram is not None:
                    histogram.record(tokens, attributes)
        if self._token_usage is not None and usage is not None:
            for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                self._token_usage.record(tokens, {**attributes, semconv.TOKEN_TYPE: kind})
        for kind, counter in self._usage.items():
            for modality, tokens in _by_modality(kind, usage, call).items():
                counter.add(tokens, {**attributes, semconv.TOKEN_MODALITY: modality})


def _by_modality(kind: str, usage: Usage | None, call: Call | None) -> dict[str, int]:
    """Return the tokens of a kind by modality. `unknown`: the provider does not break them down, and has media."""
    if usage is None:
        return {"unknown": 0} if kind in ("input", "output") else {}
    text = "text" if call is not None and not _has_media(call) else "unknown"
    parts: dict[str, int] = {}
    if kind == "input":
        total, parts = usage.input_tokens, {"audio": usage.input_audio_tokens or 0}
    elif kind == "output":
        total = usage.output_tokens
        parts = {"audio": usage.output_audio_tokens or 0, "image": usage.output_image_tokens or 0}
        text = "text"
    elif kind == "cache_read":
        total, parts = usage.cache_read_tokens or 0, {"audio": usage.cache_read_audio_tokens or 0}
    else:
        total = (usage.cache_write_tokens if kind == "cache_write" else usage.reasoning_tokens) or 0
    found = {modality: tokens for modality, tokens in parts.items() if tokens}
    rest = total - sum(found.values())
    if rest > 0 or (kind in ("input", "output") and not found):
        found["text" if kind == "reasoning" else text] = max(0, rest)
    return found


def _has_media(call: Call) -> bool:
    return any(
        isinstance(part, ImagePart | FilePart | AudioPart) or getattr(part, "media", None)
        for message in call.conversation.messages
        for part in message.parts
    )


class CallSpan(CallObserver):
    """The span of one call.

    Args:
        observer: Has the tracer and the instruments.
        call: The call.
        context: The context of its parent; None: that of the caller.
    """

    def __init__(self, observer: OpenTelemetryObserver, call: ObservedCall, context: Any = None) -> None:
        self._observer = observer
        self._request = request = call.request
        self._started_at = time.perf_counter()
        self._first_s: float | None = None
        # Of the conversation only on request; the parameters of a request have no text of it.
        self._shared = shared_attributes(call, request)
        name = f"{self._shared[semconv.OPERATION_NAME]} {self._shared[semconv.REQUEST_MODEL]}"
        attributes = self._shared | ({} if request is None else _request_attributes(request))
        self._span = observer.tracer.start_span(name, context, kind=observer.client_kind, attributes=attributes)
        if observer.captures_content and self._span.is_recording():
            self._set_prompt(call, request)

    def _set_prompt(self, call: ObservedCall, request: Call | None) -> None:
        messages = call.conversation.messages
        self._span.set_attribute(semconv.INPUT_MESSAGES, content.input_messages(messages))
        system = content.system_instructions(messages)
        if system is not None:
            self._span.set_attribute(semconv.SYSTEM_INSTRUCTIONS, system)
        if request is not None and request.tools:
            self._span.set_attribute(semconv.TOOL_DEFINITIONS, content.tool_definitions(request.tools))

    def attempt_started(self, attempt: ObservedAttempt) -> None:
        """Add an event for each attempt after the first one."""
        if attempt.reason is not None:
            found: dict[str, Any] = {semconv.ATTEMPT_NUMBER: attempt.number, semconv.REQUEST_MODEL: attempt.model}
            self._span.add_event(semconv.ATTEMPT_EVENT, {**found, semconv.ERROR_TYPE: attempt.reason})

    def first_token(self, seconds: float) -> None:
        """Record the time to the first chunk."""
        self._first_s = seconds
        if self._is_streamed:
            self._observer.instruments.first_chunk.record(seconds, self._shared)

    def read(self, events: int, seconds: float) -> None:
        """Record the time of a chunk: a read."""
        if self._is_streamed:
            self._observer.instruments.output_chunk.record(seconds, self._shared)

    @property
    def _is_streamed(self) -> bool:
        return self._request is None or self._request.is_streamed

    def ended(self, response: APIResponse) -> None:
        """Record the end, and end the span."""
        span, outcome = self._span, outcome_of(response)
        try:
            span.set_attributes(self._response_attributes(response, is_cached=outcome == "cached"))
            if response.error is not None:
                span.set_status(self._observer.error_status)  # without the message, which may quote the prompt
            if self._observer.captures_content and span.is_recording():
                span.set_attribute(semconv.OUTPUT_MESSAGES, content.output_messages(response))
        finally:
            span.end()
        if outcome == "cached":  # nothing was sent
            return
        attributes = dict(self._shared)
        if response.model_external:
            attributes[semconv.RESPONSE_MODEL] = response.model_external
        self._observer.instruments.record_usage(response.usage, attributes, self._request)
        if response.error is not None:
            attributes[semconv.ERROR_TYPE] = type(response.error).__name__
        self._observer.instruments.duration.record(time.perf_counter() - self._started_at, attributes)

    def _response_attributes(self, response: APIResponse, *, is_cached: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            semconv.RESPONSE_ID: response.response_id,
            semconv.RESPONSE_MODEL: response.model_external,
            semconv.RESPONSE_FINISH_REASONS: [response.finish_reason or semconv.FINISH_ERROR],
            semconv.COST: response.cost,
            semconv.ATTEMPTS: None if response.stats is None else response.stats.attempts,
            semconv.CACHED: is_cached or None,
        }
        if self._is_streamed:
            found[semconv.RESPONSE_TIME_TO_FIRST_CHUNK] = self._first_s
        if response.error is not None:
            found[semconv.ERROR_TYPE] = type(response.error).__name__
        if response.usage is not None and not is_cached:
            found |= _usage_attributes(response.usage, self._observer.names)
        return _given(found)


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def shared_attributes(call: ObservedCall, request: Call | None) -> dict[str, Any]:
    """Return the attributes of spans and metrics."""
    if request is None:
        return {
            semconv.OPERATION_NAME: semconv.CHAT,
            semconv.PROVIDER_NAME: "unknown",
            semconv.REQUEST_MODEL: call.model,
        }
    found: dict[str, Any] = {
        semconv.OPERATION_NAME: semconv.OPERATIONS.get(request.provider.adapter, semconv.CHAT),
        semconv.PROVIDER_NAME: request.provider.otel_name,
        semconv.REQUEST_MODEL: request.model.name,
    }
    url = urlsplit(request.base_url)
    if not url.hostname:
        return found
    return {**found, semconv.SERVER_ADDRESS: url.hostname, semconv.SERVER_PORT: url.port or _PORTS.get(url.scheme, 443)}


def _request_attributes(request: Call) -> dict[str, Any]:
    params = request.params
    stop = (params.stop,) if isinstance(params.stop, str) else params.stop
    return _given(
        {
            semconv.REQUEST_STREAM: request.is_streamed,
            semconv.REQUEST_MAX_TOKENS: params.max_new_tokens,
            semconv.REQUEST_TEMPERATURE: params.temperature,
            semconv.REQUEST_TOP_P: params.top_p,
            semconv.REQUEST_SEED: params.seed,
            semconv.REQUEST_STOP_SEQUENCES: None if stop is None else tuple(stop),
            semconv.REQUEST_FREQUENCY_PENALTY: params.frequency_penalty,
            semconv.REQUEST_PRESENCE_PENALTY: params.presence_penalty,
            semconv.REQUEST_REASONING_LEVEL: params.reasoning_effort,
            semconv.OUTPUT_TYPE: "json" if request.output is not None or params.json_mode else None,
        }
    )


def _usage_attributes(usage: Usage, names: semconv.NameSet) -> dict[str, Any]:
    return {
        semconv.USAGE_INPUT_TOKENS: usage.input_tokens,
        semconv.USAGE_OUTPUT_TOKENS: usage.output_tokens,
        semconv.USAGE_CACHE_READ: usage.cache_read_tokens,
        names.cache_write: usage.cache_write_tokens,
        semconv.USAGE_REASONING: usage.reasoning_tokens,
        semconv.ESTIMATED: usage.estimated or None,
    }
