"""Spans of agent loops and of the tools that they run; imported when the first loop is observed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lm_deluge.response import APIResponse
from lm_deluge.telemetry import semconv
from lm_deluge.telemetry.observer import AgentObserver, CallObserver, ObservedCall, ToolObserver
from lm_deluge.telemetry.otel import CallSpan, OpenTelemetryObserver, shared_attributes

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["AgentSpan"]


class AgentSpan(AgentObserver):
    """The span `invoke_agent` of one loop.

    Args:
        observer: Has the tracer and the instruments.
        call: The loop at its start.
    """

    def __init__(self, observer: OpenTelemetryObserver, call: ObservedCall) -> None:
        from opentelemetry import trace

        self._observer = observer
        self._started_at = time.perf_counter()
        self._attributes = {**shared_attributes(call, call.request), semconv.OPERATION_NAME: semconv.INVOKE_AGENT}
        self._span = observer.tracer.start_span(semconv.INVOKE_AGENT, attributes=self._attributes)
        self._context = trace.set_span_in_context(self._span)

    def call_started(self, call: ObservedCall) -> CallObserver:
        """Start the span of a round."""
        return CallSpan(self._observer, call, self._context)

    def tool_started(self, name: str, call_id: str) -> ToolObserver:
        """Start the span of a tool, which is the current one of its task."""
        return _ToolSpan(self._observer, self._context, name, call_id)

    def ended(self, response: APIResponse) -> None:
        """End the span."""
        attributes: dict[str, Any] = dict(self._attributes)
        reason = response.finish_reason or semconv.FINISH_ERROR
        self._span.set_attribute(semconv.RESPONSE_FINISH_REASONS, [reason])
        if response.usage is not None:
            self._span.set_attribute(semconv.USAGE_INPUT_TOKENS, response.usage.input_tokens)
            self._span.set_attribute(semconv.USAGE_OUTPUT_TOKENS, response.usage.output_tokens)
        if response.cost is not None:
            self._span.set_attribute(semconv.COST, response.cost)
        if response.error is not None:
            attributes[semconv.ERROR_TYPE] = type(response.error).__name__
            self._span.set_attribute(semconv.ERROR_TYPE, attributes[semconv.ERROR_TYPE])
            self._span.set_status(self._observer.error_status)
        self._span.end()
        self._observer.instruments.agent_duration.record(time.perf_counter() - self._started_at, attributes)


class _ToolSpan(ToolObserver):
    def __init__(self, observer: OpenTelemetryObserver, parent: Context, name: str, call_id: str) -> None:
        from opentelemetry import context, trace

        self._observer = observer
        self._started_at = time.perf_counter()
        self._attributes = {semconv.OPERATION_NAME: semconv.EXECUTE_TOOL, semconv.TOOL_NAME: name}
        attributes = {**self._attributes, semconv.TOOL_TYPE: "function", semconv.TOOL_CALL_ID: call_id}
        self._span = observer.tracer.start_span(f"{semconv.EXECUTE_TOOL} {name}", parent, attributes=attributes)
        self._detach = context.detach
        self._token = context.attach(trace.set_span_in_context(self._span))

    def ended(self, error: BaseException | None) -> None:
        """End the span."""
        self._detach(self._token)
        attributes = dict(self._attributes)
        if error is not None:
            attributes[semconv.ERROR_TYPE] = type(error).__name__
            self._span.set_attribute(semconv.ERROR_TYPE, attributes[semconv.ERROR_TYPE])
            self._span.set_status(self._observer.error_status)
        self._span.end()
        self._observer.instruments.tool_duration.record(time.perf_counter() - self._started_at, attributes)
