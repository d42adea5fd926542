"""Requests to each model family through the native API, as parsed JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.bedrock_converse.models import find_family, find_vendor
from lm_deluge.adapters.bedrock_invoke.adapter import BedrockInvoke
from lm_deluge.config import SamplingParams
from lm_deluge.errors import UnsupportedParameterError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, TextPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.wire.http import HttpRequest

HI = Conversation.user("Hi")
TALK = Conversation.system("Be brief.").user("Hi").assistant("Yes?").user("Why?")
ADD = Tool(name="add", parameters={"type": "object"})
PNG = b"\x89PNG\r\n\x1a\n rest"
SAMPLING = SamplingParams(max_new_tokens=9, temperature=0.5, top_p=0.25, stop="|")


def request_of(name: str, conversation: Conversation = HI, **fields: Any) -> HttpRequest:
    model = ModelRow(id="m", name=name, provider="bedrock-invoke")
    fields = {"base_url": "https://aws.test", **fields}
    call = Call(model=model, provider=find_provider("bedrock-invoke"), conversation=conversation, **fields)
    return BedrockInvoke().build_request(call)


def body_of(name: str, conversation: Conversation = HI, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request_of(name, conversation, **fields).body)
    return body


@pytest.mark.parametrize(
    ("model", "vendor", "family"),
    [
        ("anthropic.claude-v2", "anthropic", "claude"),
        ("us.anthropic.claude-3-5-sonnet-20240620-v1:0", "anthropic", "claude"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-x", "anthropic", "claude"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-text-lite-v1", "amazon", "titan"),
        ("eu.amazon.nova-lite-v1:0", "amazon", "nova"),
        ("us.meta.llama3-3-70b-instruct-v1:0", "meta", "llama"),
        ("mistral.mistral-7b-instruct-v0:2", "mistral", "mistral-text"),
        ("mistral.mistral-large-2407-v1:0", "mistral", "chat"),
        ("cohere.command-r-plus-v1:0", "cohere", "command-r"),
        ("cohere.command-text-v14", "cohere", "command"),
        ("ai21.jamba-1-5-large-v1:0", "ai21", "chat"),
        ("openai.gpt-oss-120b-1:0", "openai", "chat"),
        ("arn:aws:bedrock:us-east-1:1:imported-model/abc123", "", "chat"),
        ("some-model", "", "chat"),
        ("my.own.anthropic.x", "", "chat"),
    ],
)
def test_whose_a_model_is(model: str, vendor: str, family: str) -> None:
    assert (find_vendor(model), find_family(model)) == (vendor, family)


def test_where_to() -> None:
    request = request_of("amazon.titan-text-lite-v1:0", params=SamplingParams(service_tier="flex"))
    assert request.url == "https://aws.test/model/amazon.titan-text-lite-v1%3A0/invoke-with-response-stream"
    assert request.headers == {
        "content-type": "application/json",
        "accept": "application/vnd.amazon.eventstream",
        "x-amzn-bedrock-service-tier": "flex",
    }
    assert request_of("some-model", is_streamed=False).url == "https://aws.test/model/some-model/invoke"


def test_claude() -> None:
    parts = (ReasoningPart("Hm."), ProviderDataPart("bedrock-invoke", "signature", "sig"), TextPart("Yes?"))
    conversation = Conversation([Message.user("Hi"), Message("assistant", parts), Message.user("Why?")])
    body = body_of("anthropic.claude-x", conversation, params=SAMPLING, tools=(ADD,))
    assert body["anthropic_version"] == "bedrock-2023-05-31"
    assert {"model", "stream", "service_tier"} & set(body) == set()
    assert (body["max_tokens"], body["stop_sequences"]) == (9, ["|"])
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "text", "text": "Yes?"},
    ]
    tier = request_of("anthropic.claude-x", params=SamplingParams(service_tier="priority"))
    assert tier.headers["x-amzn-bedrock-service-tier"] == "priority"
    assert "service_tier" not in json.loads(tier.body)


def test_nova() -> None:
    body = body_of("amazon.nova-lite-v1:0", TALK, params=SAMPLING, tools=(ADD,), cache="system_and_tools")
    mark = {"cachePoint": {"type": "default"}}
    assert body == {
        "schemaVersion": "messages-v1",
        "system": [{"text": "Be brief."}, mark],
        "messages": [
            {"role": "user", "content": [{"text": "Hi"}]},
            {"role": "assistant", "content": [{"text": "Yes?"}]},
            {"role": "user", "content": [{"text": "Why?"}]},
        ],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.25, "stopSequences": ["|"]},
        "toolConfig": {"tools": [{"toolSpec": {"name": "add", "inputSchema": {"json": {"type": "object"}}}}, mark]},
    }


@pytest.mark.parametrize(
    ("effort", "sent"),
    [("none", {"type": "disabled"}), ("medium", {"type": "enabled", "maxReasoningEffort": "medium"})],
)
def test_how_much_nova_thinks(effort: Any, sent: Any) -> None:
    body = body_of("amazon.nova-2-lite-v1:0", params=SamplingParams(reasoning_effort=effort))
    assert body["inferenceConfig"] == {"reasoningConfig": sent}


def test_openai_s_form() -> None:
    body = body_of("openai.gpt-oss-20b-1:0", TALK, params=SAMPLING, tools=(ADD,))
    assert {"model", "stream", "stream_options"} & set(body) == set()
    assert body["max_completion_tokens"] == 9
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    mistral = body_of(
        "mistral.mistral-large-2407-v1:0", params=SamplingParams(max_new_tokens=9, tool_choice="required")
    )
    assert (mistral["max_tokens"], mistral["tool_choice"]) == (9, "any")


def test_titan() -> None:
    assert body_of("amazon.titan-text-lite-v1") == {"inputText": "Hi"}
    body = body_of("amazon.titan-text-lite-v1", Conversation.user("Hi").assistant("Yes?").user("Why?"), params=SAMPLING)
    assert body == {
        "inputText": "User: Hi\nBot: Yes?\nUser: Why?\nBot:",
        "textGenerationConfig": {"maxTokenCount": 9, "temperature": 0.5, "topP": 0.25, "stopSequences": ["|"]},
    }


@pytest.mark.parametrize(
    ("model", "prompt"),
    [
        (
            "meta.llama2-13b-chat-v1",
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Why? [/INST]",
        ),
        (
            "us.meta.llama3-1-8b-instruct-v1:0",
            (
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"
            ),
        ),
        (
            "meta.llama4-scout-17b-instruct-v1:0",
            (
                "<|begin_of_text|><|header_start|>system<|header_end|>\n\nBe brief.<|eot|>"
                "<|header_start|>user<|header_end|>\n\nHi<|eot|><|header_start|>assistant<|header_end|>\n\nYes?<|eot|>"
                "<|header_start|>user<|header_end|>\n\nWhy?<|eot|><|header_start|>assistant<|header_end|>\n\n"
            ),
        ),
    ],
)
def test_llama(model: str, prompt: str) -> None:
    params = SamplingParams(max_new_tokens=9, temperature=0.5, top_p=0.25)
    assert body_of(model, TALK, params=params) == {
        "prompt": prompt,
        "max_gen_len": 9,
        "temperature": 0.5,
        "top_p": 0.25,
    }


def test_mistral_s_first_models() -> None:
    assert body_of("mistral.mixtral-8x7b-instruct-v0:1", TALK, params=SAMPLING) == {
        "prompt": "<s>[INST] Be brief.\n\nHi [/INST] Yes?</s>[INST] Why? [/INST]",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.25,
        "stop": ["|"],
    }


def test_cohere() -> None:
    sent = {"max_tokens": 9, "temperature": 0.5, "p": 0.25, "stop_sequences": ["|"]}
    assert body_of("cohere.command-text-v14", params=SAMPLING) == {"prompt": "Hi", **sent, "stream": True}
    assert "stream" not in body_of("cohere.command-text-v14", is_streamed=False)
    body = body_of("cohere.command-r-v1:0", TALK, params=SAMPLING)
    history = [{"role": "USER", "message": "Hi"}, {"role": "CHATBOT", "message": "Yes?"}]
    assert body == {"message": "Why?", "chat_history": history, "preamble": "Be brief.", **sent}
    more = SamplingParams(seed=1, presence_penalty=0.5, frequency_penalty=0.25)
    assert body_of("cohere.command-r-v1:0", params=more) == {
        "message": "Hi",
        "seed": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
    }


TEXT = ["amazon.titan-x", "meta.llama3-x", "mistral.mixtral-x", "cohere.command-x", "cohere.command-r-x"]


@pytest.mark.parametrize("model", TEXT)
@pytest.mark.parametrize(
    "fields",
    [
        {"tools": (ADD,)},
        {"output": {"type": "object"}},
        {"cache": "last_user_message"},
        {"params": SamplingParams(reasoning_effort="low")},
        {"params": SamplingParams(logprobs=True)},
        {"params": SamplingParams(json_mode=True)},
        {"params": SamplingParams(verbosity="low")},
        {"conversation": Conversation.user("See", image=PNG)},
        {"conversation": Conversation.user("x").tool_result("t", "y")},
    ],
)
def test_what_a_family_that_continues_text_cannot_take_is_refused(model: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError):
        request_of(model, **fields)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("meta.llama3-x", {"params": SamplingParams(stop="|")}),
        ("amazon.titan-x", {"conversation": TALK}),
        ("amazon.titan-x", {"params": SamplingParams(seed=1)}),
        ("cohere.command-x", {"conversation": TALK}),
        ("cohere.command-r-x", {"conversation": Conversation.user("x").assistant("y")}),
        ("cohere.command-r-x", {"conversation": Conversation.user("x").assistant("y").system("z")}),
        ("amazon.nova-x", {"output": {"type": "object"}}),
        ("amazon.nova-x", {"params": SamplingParams(reasoning_effort="max")}),
        ("amazon.nova-x", {"params": SamplingParams(seed=1)}),
        ("anthropic.claude-x", {"params": SamplingParams(seed=1)}),
    ],
)
def test_what_one_family_cannot_take_is_refused(model: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError):
        request_of(model, **fields)
