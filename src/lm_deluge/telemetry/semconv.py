"""All names of OpenTelemetry's conventions for generative AI that this library uses, of both generations.

New: https://github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai/client-inference.md, 2026-11).
Old: opentelemetry-semantic-conventions 0.66b2, which the dashboards of 2026 know.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["GENERATIONS", "Generation", "NameSet"]

Generation = Literal["new", "old"]

# Spans

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level"
OUTPUT_TYPE = "gen_ai.output.type"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - a kind of model tokens
TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105 - a kind of model tokens

# The operations of the APIs, by the name of the adapter; of all others it is `chat`.
OPERATIONS = {"gemini-generate": "generate_content", "bedrock-invoke": "text_completion"}
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"
INVOKE_AGENT = "invoke_agent"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_DURATION = "gen_ai.execute_tool.duration"
AGENT_DURATION = "gen_ai.invoke_agent.duration"
FINISH_ERROR = "error"
"""The finish reason of an answer that broke or was left before its end."""

# What no convention has a name for.

COST = "deluge.cost"
CACHED = "deluge.cached"
ATTEMPTS = "deluge.attempts"
ESTIMATED = "deluge.usage.estimated"
ATTEMPT_EVENT = "deluge.attempt"
ATTEMPT_NUMBER = "deluge.attempt.number"

# Metrics

# gen_ai.client.*.duration and the times of chunks have the same buckets, in seconds.
SECONDS = tuple(0.01 * 2**power for power in range(14))
AGENT_SECONDS = tuple(0.1 * 2**power for power in range(13))  # of gen_ai.invoke_agent.duration
TOKENS = tuple(4**power for power in range(14))


class NameSet(NamedTuple):
    """The names that differ between the generations. A metric that is None does not exist.

    Attributes:
        cache_write: Attribute of spans.
        duration, first_chunk, output_chunk: Histograms, in seconds.
        token_usage: Histogram of tokens with the attribute `gen_ai.token.type`.
        tokens_in, tokens_out: Histograms of tokens.
        usage: Counters of tokens, by the kind of token.
    """

    cache_write: str
    duration: str
    first_chunk: str
    output_chunk: str
    token_usage: str | None = None
    tokens_in: str | None = None
    tokens_out: str | None = None
    usage: dict[str, str] = {}  # noqa: RUF012 - never changed


GENERATIONS: dict[Generation, NameSet] = {
    "new": NameSet(
        cache_write="gen_ai.usage.cache_write.input_tokens",
        duration="gen_ai.client.inference.duration",
        first_chunk="gen_ai.client.inference.time_to_first_chunk",
        output_chunk="gen_ai.client.inference.time_per_output_chunk",
        tokens_in="gen_ai.client.inference.operation.input_tokens",
        tokens_out="gen_ai.client.inference.operation.output_tokens",
        usage={
            "input": "gen_ai.client.inference.usage.input_tokens",
            "output": "gen_ai.client.inference.usage.output_tokens",
            "cache_read": "gen_ai.client.inference.usage.cache_read.input_tokens",
            "cache_write": "gen_ai.client.inference.usage.cache_write.input_tokens",
            "reasoning": "gen_ai.client.inference.usage.reasoning.output_tokens",
        },
    ),
    "old": NameSet(
        cache_write="gen_ai.usage.cache_creation.input_tokens",
        duration="gen_ai.client.operation.duration",
        first_chunk="gen_ai.client.operation.time_to_first_chunk",
        output_chunk="gen_ai.client.operation.time_per_output_chunk",
        token_usage="gen_ai.client.token.usage",  # noqa: S106 - the name of a metric
    ),
}
