"""Round trips of requests and responses of text-completion models and Nova in the native API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.bedrock_converse.models import find_family
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.bedrock_invoke.model_families import find_form
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import BadRequestError
from lm_deluge.events import (
    Event,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.tool import Tool
from lm_deluge.testing.decode import decode_body
from lm_deluge.usage import Usage

API = "bedrock-invoke"
ENCODER = find_encoder(API)
USAGE = Usage(input_tokens=5, output_tokens=2)
MODELS = {
    "titan": "amazon.titan-text-lite-v1",
    "llama": "us.meta.llama3-3-70b-instruct-v1:0",
    "mistral-text": "mistral.mistral-7b-instruct-v0:2",
    "command": "cohere.command-text-v14",
    "command-r": "cohere.command-r-v1:0",
    "nova": "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0",
    "chat": "openai.gpt-oss-20b-1:0",
    "claude": "us.anthropic.claude-3-5-sonnet-20240620-v1:0",
}


@pytest.mark.parametrize(("form", "model"), MODELS.items())
def test_adapter_and_encoder_agree_on_the_form(form: str, model: str) -> None:
    assert find_form(model) == find_family(model) == form


def test_answers_of_claude_name_no_vendor() -> None:
    assert find_form("claude-3-5-sonnet-20240620") == "claude"
    assert find_form(None) == find_form("some-model") == find_form("my.own.cohere.x") == "chat"


def answer(model: str, reason: Any = "stop", usage: Usage | None = USAGE) -> list[Event]:
    told = [] if usage is None else [UsageReported(usage)]
    return [ResponseStarted(None, model), TextDelta("Hé"), TextDelta("llo"), *told, ResponseFinished(reason)]


@pytest.mark.parametrize("model", MODELS.values())
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_text_is_read_again(model: str, reason: str) -> None:
    body = b"".join(ENCODER.encode_stream(answer(model, reason)))
    streamed = decode_body(API, body)
    plain = decode_body(API, ENCODER.encode_response(answer(model, reason)))
    for response in (streamed, plain):
        assert (response.completion, response.finish_reason, response.warnings) == ("Héllo", reason, ())
    assert streamed.usage is not None
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (5, 2)
    if plain.usage is not None:
        assert plain.usage.total_tokens == 7


@pytest.mark.parametrize("form", ["titan", "llama", "mistral-text", "command", "command-r", "nova", "chat"])
def test_unknown_usage(form: str) -> None:
    response = decode_body(API, b"".join(ENCODER.encode_stream(answer(MODELS[form], usage=None))))
    assert (response.completion, response.usage, response.finish_reason) == ("Héllo", None, "stop")


@pytest.mark.parametrize("model", MODELS.values())
def test_an_answer_that_was_cut_has_no_reason(model: str) -> None:
    frames = list(ENCODER.encode_stream(answer(model)[:2]))
    assert b"stop" not in b"".join(frames)
    assert ENCODER.encode_response(answer(model)[:2])


def test_frames_come_out_as_events_go_in() -> None:
    for model in MODELS.values():
        taken = 0

        def events(model: str = model) -> Any:
            nonlocal taken
            for event in answer(model):
                taken += 1
                yield event

        stream = ENCODER.encode_stream(events())
        for frame in stream:
            assert frame
            if taken >= 2:
                break
        assert taken == 2


def test_nova_carries_blocks() -> None:
    events = [
        ResponseStarted(None, "amazon.nova-2-lite-v1:0"),
        ReasoningDelta("Hm."),
        ProviderPart("recording", "reasoning_signature", "sig"),
        TextDelta("So"),
        ToolCallStarted(0, "t1", "f"),
        ToolCallDelta(0, '{"a":1}'),
        ToolCallFinished(0, "t1", "f", '{"a":1}', {"a": 1}),
        UsageReported(Usage(input_tokens=9, output_tokens=2, cache_read_tokens=4)),
        ResponseFinished("tool_calls"),
    ]
    response = decode_body(API, b"".join(ENCODER.encode_stream(events)))
    assert (response.thinking, response.completion, response.finish_reason) == ("Hm.", "So", "tool_calls")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.cache_read_tokens) == (9, 4)


def again(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body that the adapter builds from the request that the encoder parsed."""
    parsed = ENCODER.parse_request(json.dumps(body).encode(), model=model, is_streamed=True)
    row = ProviderRow(id=API, otel_name=API, adapter=API, base_url="https://a.test", prompt_cache="explicit")
    call = Call(
        model=ModelRow(id=model, name=model, provider=API),
        provider=row,
        base_url=row.base_url,
        conversation=parsed.conversation,
        params=parsed.params,
        tools=parsed.tools,
        cache=parsed.cache,
        extra_body=parsed.extra,
    )
    found: dict[str, Any] = json.loads(find_adapter(API).build_request(call).body)
    return found


TOOLS = {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]}


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("titan", {"inputText": "Hi", "textGenerationConfig": {"maxTokenCount": 9, "stopSequences": ["|"]}}),
        ("mistral-text", {"prompt": "<s>[INST] Hi [/INST]", "max_tokens": 9, "top_k": 3}),
        ("command", {"prompt": "Hi", "p": 0.5, "stream": True, "k": 2}),
        (
            "command-r",
            {
                "message": "Why?",
                "preamble": "Be brief.",
                "chat_history": [{"role": "USER", "message": "Hi"}, {"role": "CHATBOT", "message": "Yes?"}],
                "seed": 1,
            },
        ),
        (
            "nova",
            {
                "schemaVersion": "messages-v1",
                "system": [{"text": "Be brief."}],
                "messages": [{"role": "user", "content": [{"text": "Hi"}, {"cachePoint": {"type": "default"}}]}],
                "inferenceConfig": {
                    "maxTokens": 9,
                    "reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"},
                },
                "toolConfig": {**TOOLS, "toolChoice": {"tool": {"name": "f"}}},
            },
        ),
        (
            "nova",
            {
                "schemaVersion": "messages-v1",
                "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
                "inferenceConfig": {"maxTokens": 9, "topK": 20},
            },
        ),
        ("chat", {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 9}),
    ],
)
def test_requests_are_built_again(form: str, body: dict[str, Any]) -> None:
    wanted = body
    if form == "mistral-text":  # the parsed prompt keeps its tags, and the adapter adds its own
        wanted = {**body, "prompt": "<s>[INST] <s>[INST] Hi [/INST] [/INST]"}
    assert again(MODELS[form], body) == wanted


def test_parameters_are_ours() -> None:
    body = {"prompt": "Hi", "max_gen_len": 9, "temperature": 0.5, "top_p": 0.25}
    parsed = ENCODER.parse_request(json.dumps(body).encode(), model=MODELS["llama"], is_streamed=False)
    assert parsed.params == SamplingParams(max_new_tokens=9, temperature=0.5, top_p=0.25)
    assert (parsed.conversation, parsed.model) == (Conversation.user("Hi"), MODELS["llama"])
    assert not parsed.is_streamed
    chat = {"messages": [{"role": "user", "content": "Hi"}], "tool_choice": "any"}
    chat["tools"] = [{"type": "function", "function": {"name": "f"}}]
    found = ENCODER.parse_request(json.dumps(chat).encode(), model="mistral.mistral-large-2407-v1:0", is_streamed=True)
    assert found.params.tool_choice == "required"
    assert found.tools == (Tool(name="f"),)


@pytest.mark.parametrize("form", MODELS)
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"prompt": 5, "messages": 5, "inputText": 5, "message": 5}'])
def test_malformed_requests_are_bad_requests(form: str, body: bytes) -> None:
    with pytest.raises(BadRequestError):
        ENCODER.parse_request(body, model=MODELS[form], is_streamed=True)


def test_the_path_must_name_the_model() -> None:
    for api in (API, "bedrock-converse"):
        with pytest.raises(BadRequestError, match="modelId"):
            find_encoder(api).parse_request(b'{"messages": []}')
