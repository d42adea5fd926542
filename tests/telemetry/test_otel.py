"""Spans and metrics, read back from OpenTelemetry's own in-memory exporters; names checked against the conventions."""

from __future__ import annotations

import asyncio
import builtins
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode

from lm_deluge import Conversation, LLMClient, Tool
from lm_deluge.errors import ConfigurationError, MissingExtraError, RateLimitError
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta, UsageReported
from lm_deluge.models.registry import list_providers
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.faults.catalog import Fault
from lm_deluge.telemetry import semconv
from lm_deluge.telemetry.otel import OpenTelemetryObserver, _by_modality
from lm_deluge.usage import Usage
from loopback import END, HEAD, HELLO, RST, chunk, plain, text
from racing import SILENT, racing
from telemetry.recorder import client_of, without_pauses
from telemetry.test_observer import WAYS

WORDS = "one two three"

# The names of open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md (2026-11).
NEW_SPAN_ATTRIBUTES = {
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "error.type",
    "gen_ai.output.type",
    "gen_ai.request.model",
    "gen_ai.request.seed",
    "gen_ai.request.stream",
    "gen_ai.request.frequency_penalty",
    "gen_ai.request.max_tokens",
    "gen_ai.request.presence_penalty",
    "gen_ai.request.reasoning.level",
    "gen_ai.request.stop_sequences",
    "gen_ai.request.temperature",
    "gen_ai.request.top_p",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "server.address",
    "server.port",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
}
NEW_METRICS = {
    "gen_ai.client.inference.duration": "s",
    "gen_ai.client.inference.time_to_first_chunk": "s",
    "gen_ai.client.inference.time_per_output_chunk": "s",
    "gen_ai.client.inference.usage.input_tokens": "{token}",
    "gen_ai.client.inference.usage.output_tokens": "{token}",
    "gen_ai.client.inference.usage.cache_read.input_tokens": "{token}",
    "gen_ai.client.inference.usage.cache_write.input_tokens": "{token}",
    "gen_ai.client.inference.usage.reasoning.output_tokens": "{token}",
    "gen_ai.client.inference.operation.input_tokens": "{token}",
    "gen_ai.client.inference.operation.output_tokens": "{token}",
}
OLD_METRICS = {
    gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION: "s",
    gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK: "s",
    gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK: "s",
    gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE: "{token}",
}
OLD_SPAN_ATTRIBUTES = {
    *(value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")),
    *(value for name, value in vars(server_attributes).items() if name.startswith("SERVER_")),
    error_attributes.ERROR_TYPE,
}


class Exported:
    """The SDK with in-memory exporters, and observers that use it."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._reader])

    def observer(self, **options: Any) -> OpenTelemetryObserver:
        return OpenTelemetryObserver(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options
        )

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    @property
    def only(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.only.attributes or {})

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        metric = self.metrics().get(name)
        return [] if metric is None else [(dict(point.attributes), point) for point in metric.data.data_points]


@pytest.fixture
def exported() -> Iterator[Exported]:
    found = Exported()
    yield found
    found.tracer_provider.shutdown()
    found.meter_provider.shutdown()


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(WORDS) as running:
        yield running


USAGE = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=40, cache_write_tokens=0, reasoning_tokens=20)


async def test_the_span_of_a_call(exported: Exported) -> None:
    async with Simulator(Script(text=WORDS, usage=USAGE)) as sim:
        client = client_of(sim, exported.observer(), model="gpt-4.1")
        options = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "max_new_tokens": 90, "stop": "END"}
        response = await client.stream("Hi", echo=None, presence_penalty=0.5, frequency_penalty=0.25, **options)
        port = int(sim.base_url.split(":")[2].split("/")[0])
    span, found = exported.only, exported.attributes
    assert (span.name, span.kind, span.status.status_code) == ("chat gpt-4.1", SpanKind.CLIENT, StatusCode.UNSET)
    first_s = found.pop("gen_ai.response.time_to_first_chunk")
    assert first_s == response.stats.time_to_first_token
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 90,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.presence_penalty": 0.5,
        "gen_ai.request.frequency_penalty": 0.25,
        "gen_ai.response.id": response.response_id,
        "gen_ai.response.model": response.model_external,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "server.address": "127.0.0.1",
        "server.port": port,
        "deluge.cost": response.cost,
        "deluge.attempts": 1,
    } | ({"gen_ai.usage.cache_write.input_tokens": 0} if response.usage.cache_write_tokens == 0 else {})


@pytest.mark.parametrize(
    ("model", "name", "provider"),
    [
        ("gemini-2.5-flash", "generate_content gemini-2.5-flash", "gcp.gemini"),
        ("claude-sonnet-4-5", "chat claude-sonnet-4-5", "anthropic"),
        ("openai-responses:gpt-5", "chat gpt-5", "openai"),
    ],
)
async def test_operations_and_providers(
    exported: Exported, sim: Simulator, model: str, name: str, provider: str
) -> None:
    url = sim.base_url if "gpt" in model else sim.url
    client = LLMClient(model, base_url=url, api_key="k", observers=[exported.observer()])
    await client.stream("Hi", echo=None)
    assert exported.only.name.startswith(name)
    assert exported.attributes["gen_ai.provider.name"] == provider


async def test_what_a_request_asks_for_beside_numbers(exported: Exported, sim: Simulator) -> None:
    client = client_of(sim, exported.observer(), model="gpt-5")
    await client.stream("Hi", echo=None, reasoning_effort="low", json_mode=True)
    assert exported.attributes["gen_ai.request.reasoning.level"] == "low"
    assert exported.attributes["gen_ai.output.type"] == "json"


@pytest.mark.parametrize("ask", WAYS, ids=lambda ask: ask.__name__)
async def test_spans_are_children_of_the_span_of_the_caller(exported: Exported, sim: Simulator, ask: Any) -> None:
    client = client_of(sim, exported.observer())
    with exported.tracer_provider.get_tracer("program").start_as_current_span("request") as parent:
        await ask(client)
    span = next(span for span in exported.spans if span.name == "chat gpt-4o")
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id


async def test_one_span_covers_all_attempts(exported: Exported) -> None:
    async with Simulator(WORDS, faults=[Fault("status", status=500)]) as sim:
        await without_pauses(client_of(sim, exported.observer())).stream("Hi", echo=None)
    (event,) = exported.only.events
    assert event.name == "deluge.attempt"
    assert dict(event.attributes or {}) == {
        "deluge.attempt.number": 2,
        "gen_ai.request.model": "gpt-4o",
        "error.type": "ServerError",
    }
    assert exported.attributes["deluge.attempts"] == 2
    assert "error.type" not in exported.attributes


async def test_a_hedged_call_is_one_span_of_the_caller(exported: Exported) -> None:
    tracer = exported.tracer_provider.get_tracer("program")
    async with racing(SILENT, [HEAD, chunk(HELLO), END], observers=[exported.observer()]) as race:
        with tracer.start_as_current_span("request") as parent:
            await race.begin()
        await race.ring()
        await race.end()
    span = next(span for span in exported.spans if span.name == "chat gpt-4o")
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    (event,) = span.events
    assert (event.attributes or {})["error.type"] == "Hedge"


async def test_a_failed_call(exported: Exported) -> None:
    async with Simulator(WORDS, faults=Fault("status", status=429)) as sim:
        with pytest.raises(RateLimitError):
            await client_of(sim, exported.observer(), max_attempts=1).stream("Hi", echo=None)
    span = exported.only
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert exported.attributes["error.type"] == "RateLimitError"
    assert exported.attributes["gen_ai.response.finish_reasons"] == ("error",)
    ((attributes, point),) = exported.points("gen_ai.client.inference.duration")
    assert (attributes["error.type"], point.count) == ("RateLimitError", 1)
    for kind in ("input", "output"):  # without usage: 0 tokens of an unknown kind
        ((attributes, point),) = exported.points(f"gen_ai.client.inference.usage.{kind}_tokens")
        assert (attributes["gen_ai.token.modality"], point.value) == ("unknown", 0)
    assert exported.points("gen_ai.client.inference.operation.input_tokens") == []


async def test_a_stream_that_breaks_has_the_finish_reason_error(exported: Exported) -> None:
    broken = [HEAD, chunk(text("Hel")), RST]
    async with racing(broken, observers=[exported.observer()], hedge_after=None, model="gpt-4o") as race:
        with pytest.raises(Exception, match=r"."):
            await race.client.stream("Hi", echo=None)
    assert exported.attributes["gen_ai.response.finish_reasons"] == ("error",)
    assert exported.attributes["error.type"] == "StreamInterruptedError"
    assert exported.attributes["deluge.usage.estimated"] is True


async def test_a_stream_that_is_left_is_no_error(exported: Exported, sim: Simulator) -> None:
    stream = client_of(sim, exported.observer()).stream("Hi")
    await stream.next_batch()
    await stream.cancel()
    assert exported.only.status.status_code is StatusCode.UNSET
    assert "error.type" not in exported.attributes
    assert exported.attributes["gen_ai.response.finish_reasons"] == ("error",)


async def test_an_answer_of_the_local_cache_has_no_usage(exported: Exported, sim: Simulator, tmp_path: Path) -> None:
    async with client_of(sim, exported.observer(), local_cache=tmp_path / "answers") as client:
        await client.stream("Hi", echo=None)
        await client.stream("Hi", echo=None)
    first, second = ({**(span.attributes or {})} for span in exported.spans)
    assert "deluge.cached" not in first
    assert second["deluge.cached"] is True
    assert "gen_ai.usage.input_tokens" not in second
    ((_, point),) = exported.points("gen_ai.client.inference.duration")
    assert point.count == 1


async def test_a_plain_document_has_no_times_of_chunks(exported: Exported) -> None:
    body = b'{"id":"1","model":"m","choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
    async with racing(plain("200 OK", body), observers=[exported.observer()], hedge_after=None, model="gpt-4o") as race:
        await race.client.process_prompts_async(["Hi"])
    assert exported.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert exported.points("gen_ai.client.inference.time_per_output_chunk") == []


# Names


async def ask_for_everything(exported: Exported, **options: Any) -> None:
    """Make calls that need every name: with all parameters, all kinds of tokens, content, tools and an error."""
    usage = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=40, cache_write_tokens=10, reasoning_tokens=20)
    events = [ResponseStarted("1", "m"), TextDelta("a"), UsageReported(usage), ResponseFinished("stop")]
    tool = Tool(name="weather", description="Of a city", parameters={"type": "object", "properties": {}})
    params: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "max_new_tokens": 5, "stop": "END"}
    prompt = Conversation().system("Be short.").user("Hi")
    async with Simulator(Script(events=events)) as sim:
        observer = exported.observer(capture_content=True, **options)
        claude = LLMClient("claude-sonnet-4-5", base_url=sim.url, api_key="k", observers=[observer])
        await claude.stream(prompt, tools=[tool], echo=None, max_new_tokens=5)
        client = client_of(sim, observer, model="gpt-4.1")
        await client.stream("Hi", seed=1, presence_penalty=1, frequency_penalty=1, json_mode=True, echo=None, **params)
        await client_of(sim, observer, model="gpt-5").stream("Hi", reasoning_effort="low", echo=None)
    async with Simulator(WORDS, faults=Fault("status", status=400)) as sim:
        await client_of(sim, observer).process_prompts_async(["Hi"])
    go = asyncio.Event()  # so that the answer takes two reads
    steps = [HEAD, chunk(text("Hel")), go, chunk(HELLO), END]
    async with racing(steps, observers=[observer], hedge_after=None, model="gpt-4o") as race:
        stream = race.client.stream("Hi")
        await stream.next_batch()
        go.set()
        await stream.read_to_end()


def names_of(exported: Exported) -> set[str]:
    return {name for span in exported.spans for name in span.attributes or {}}


async def test_the_new_names(exported: Exported) -> None:
    await ask_for_everything(exported)
    assert {name for name in names_of(exported) if not name.startswith("deluge.")} == NEW_SPAN_ATTRIBUTES
    metrics = exported.metrics()
    assert {name: metric.unit for name, metric in metrics.items()} == NEW_METRICS
    allowed = {"gen_ai.token.modality", "gen_ai.response.model", "gen_ai.operation.name", "gen_ai.provider.name"}
    allowed |= {"gen_ai.request.model", "server.address", "server.port", "error.type"}
    for name in metrics:
        for attributes, _ in exported.points(name):
            assert set(attributes) <= allowed
            assert ("gen_ai.token.modality" in attributes) is (".usage." in name)


async def test_the_old_names(exported: Exported) -> None:
    await ask_for_everything(exported, names="old")
    found = {name for name in names_of(exported) if not name.startswith("deluge.")}
    assert found - {"gen_ai.request.reasoning.level"} <= OLD_SPAN_ATTRIBUTES  # which is new, and replaces nothing
    assert "gen_ai.usage.cache_creation.input_tokens" in found
    metrics = exported.metrics()
    assert {name: metric.unit for name, metric in metrics.items()} == OLD_METRICS
    kinds = {attributes["gen_ai.token.type"] for attributes, _ in exported.points("gen_ai.client.token.usage")}
    assert kinds == {value.value for value in gen_ai_attributes.GenAiTokenTypeValues} & {"input", "output"}


async def test_the_buckets(exported: Exported) -> None:
    """The buckets of the conventions, in the words of their documentation."""
    await ask_for_everything(exported)
    seconds = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
    tokens = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
    for name, bounds in {
        "gen_ai.client.inference.duration": seconds,
        "gen_ai.client.inference.time_to_first_chunk": seconds,
        "gen_ai.client.inference.operation.input_tokens": tokens,
    }.items():
        assert all(point.explicit_bounds == pytest.approx(bounds) for _, point in exported.points(name))
    assert pytest.approx(seconds) == semconv.SECONDS


def test_the_operations_are_known() -> None:
    known = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
    assert {*semconv.OPERATIONS.values(), semconv.CHAT} <= known


# `gen_ai.provider.name` of docs/gen-ai/gen-ai-token-metrics.md, and the row of each (2026-11).
PROVIDERS = {
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "groq": "groq",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "openai": "openai",
    "openai-responses": "openai",
    "perplexity": "perplexity",
    "xai": "x_ai",
}


def test_the_names_of_providers() -> None:
    rows = {row.id: row.otel_name for row in list_providers()}
    assert {name: rows[name] for name in PROVIDERS} == PROVIDERS


# Tokens

MODALITIES: list[tuple[str, Usage | None, bool, dict[str, int]]] = [
    ("input", None, False, {"unknown": 0}),
    ("cache_read", None, False, {}),
    ("input", Usage(input_tokens=9), False, {"text": 9}),
    ("input", Usage(input_tokens=0), False, {"text": 0}),
    ("input", Usage(input_tokens=9, input_audio_tokens=4), True, {"audio": 4, "unknown": 5}),
    ("input", Usage(input_tokens=9), True, {"unknown": 9}),
    (
        "output",
        Usage(output_tokens=9, output_audio_tokens=2, output_image_tokens=3),
        True,
        {"audio": 2, "image": 3, "text": 4},
    ),
    ("output", Usage(output_tokens=9, output_image_tokens=9), True, {"image": 9}),
    ("cache_read", Usage(cache_read_tokens=5, cache_read_audio_tokens=2), True, {"audio": 2, "unknown": 3}),
    ("cache_write", Usage(cache_write_tokens=0), False, {}),
    ("reasoning", Usage(reasoning_tokens=3), True, {"text": 3}),
]


@pytest.mark.parametrize(("kind", "usage", "has_image", "counted"), MODALITIES)
async def test_tokens_by_modality(
    exported: Exported, sim: Simulator, kind: str, usage: Usage | None, has_image: bool, counted: dict[str, int]
) -> None:
    prompt = Conversation().user("Hi", image=PNG) if has_image else Conversation().user("Hi")
    plan = client_of(sim).dispatcher.planner().plan("gpt-4o", prompt)
    assert _by_modality(kind, usage, plan.call) == counted


PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    b"\x00\x00\x00\rIDATx\x9cc\xf8\xff\xff?\x00\x05\xfe\x02\xfe\xa7\x9a\xa0\xa0\x00\x00\x00\x00IEND\xaeB`\x82"
)


# Content


async def test_content_is_left_out_by_default(exported: Exported, sim: Simulator) -> None:
    await client_of(sim, exported.observer()).stream("a secret prompt", echo=None)
    everything = json.dumps([json.loads(span.to_json()) for span in exported.spans])
    assert "secret" not in everything
    assert WORDS not in everything


async def test_content_on_request(exported: Exported) -> None:
    tool = Tool(name="weather", description="Of a city", parameters={"type": "object", "properties": {}})
    conversation = Conversation().system("Be short.").user("Weather?", image=PNG)
    script = Script(text="Let me see.", reasoning="Hm.", tool_calls=[("weather", {"city": "Rome"})])
    async with Simulator(script) as sim:
        client = client_of(sim, exported.observer(capture_content=True))
        await client.stream(conversation, tools=[tool], echo=None)
    found = exported.attributes
    assert json.loads(found["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be short."}]
    ((message),) = json.loads(found["gen_ai.input.messages"])
    assert message["role"] == "user"
    assert {"type": "text", "content": "Weather?"} in message["parts"]
    blob = next(part for part in message["parts"] if part["type"] == "blob")
    assert (blob["modality"], blob["mime_type"], blob["content"]) == ("image", "image/png", "")
    ((answer),) = json.loads(found["gen_ai.output.messages"])
    assert answer["finish_reason"] == "tool_call"
    assert {"type": "text", "content": "Let me see."} in answer["parts"]
    call = next(part for part in answer["parts"] if part["type"] == "tool_call")
    assert (call["name"], call["arguments"]) == ("weather", {"city": "Rome"})
    assert json.loads(found["gen_ai.tool.definitions"])[0]["name"] == "weather"


@pytest.mark.parametrize(
    ("value", "is_captured"),
    [
        ("true", True),
        ("SPAN_ONLY", True),
        ("span_and_event", True),
        ("event_only", False),
        ("false", False),
        ("", False),
    ],
)
def test_content_by_the_environment(exported: Exported, monkeypatch: Any, value: str, is_captured: bool) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    assert exported.observer().captures_content is is_captured
    assert exported.observer(capture_content=False).captures_content is False


# Options


def test_an_unknown_generation_of_names() -> None:
    with pytest.raises(ConfigurationError, match="names='newest' is not a known value"):
        OpenTelemetryObserver(names="newest")  # type: ignore[arg-type]


def test_a_missing_package_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pip install opentelemetry-api"):
        OpenTelemetryObserver()


async def test_without_an_sdk_nothing_happens(sim: Simulator) -> None:
    """The API alone has no exporters: its spans do not record."""
    response = await client_of(sim, OpenTelemetryObserver()).stream("Hi", echo=None)
    assert response.completion == WORDS
    assert not trace.get_current_span().is_recording()


async def test_many_calls_at_once_have_spans_of_their_own(exported: Exported, sim: Simulator) -> None:
    client = client_of(sim, exported.observer())
    tracer = exported.tracer_provider.get_tracer("program")

    async def ask(number: int) -> None:
        with tracer.start_as_current_span(f"request {number}"):
            await client.stream(f"{number}", echo=None)

    await asyncio.gather(*map(ask, range(20)))
    parents = {span.context.span_id: span.name for span in exported.spans if span.parent is None and span.context}
    calls = [span for span in exported.spans if span.parent is not None]
    assert len({parents[span.parent.span_id] for span in calls if span.parent}) == len(calls) == 20
