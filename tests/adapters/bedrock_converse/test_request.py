"""Requests to Converse, as parsed JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.bedrock_converse.adapter import BedrockConverse
from lm_deluge.api_requests.request import build_call
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import BadRequestError, InvalidPromptError, UnsupportedParameterError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.response import ResponseBuilder
from lm_deluge.wire.http import HttpRequest
from samples.bedrock_bytes import BEGIN, block_delta, block_start, block_stop, converse, metadata, stop

PNG = b"\x89PNG\r\n\x1a\n rest"
PDF = b"%PDF-1.7 rest"
HI = Conversation.user("Hi")
ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
NOP = Tool(name="nop", strict=True)
OWNER = "bedrock-converse"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def a_call(conversation: Conversation, *, name: str = "x.model", capabilities: Any = None, **fields: Any) -> Call:
    model = ModelRow(id="m", name=name, provider="bedrock", capabilities=capabilities or Capabilities())
    provider = find_provider("bedrock")
    fields = {"base_url": "https://aws.test", **fields}
    return Call(model=model, provider=provider, conversation=conversation, **fields)


def request_of(conversation: Conversation, **fields: Any) -> HttpRequest:
    return BedrockConverse().build_request(a_call(conversation, **fields))


def body_of(conversation: Conversation, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request_of(conversation, **fields).body)
    return body


def messages_of(*messages: Message, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body_of(Conversation(messages), **fields)["messages"]
    return found


def content_of(message: Message, **fields: Any) -> Any:
    (sent,) = messages_of(message, **fields)
    assert sent["role"] == "user"
    return sent["content"]


def with_params(**params: Any) -> dict[str, Any]:
    return {"params": SamplingParams(**params)}


def test_the_whole_of_a_simple_request() -> None:
    arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.x-v1:0"
    request = request_of(HI, name=arn)
    quoted = "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x-v1%3A0"
    assert request.url == f"https://aws.test/model/{quoted}/converse-stream"
    assert request.headers == {"content-type": "application/json", "accept": "application/vnd.amazon.eventstream"}
    assert request.body == b'{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}'
    plain = request_of(HI, is_streamed=False)
    assert plain.url == "https://aws.test/model/x.model/converse"
    assert plain.headers["accept"] == "application/json"


def test_the_system_speaks_first() -> None:
    body = body_of(Conversation.system("Be brief.").developer("Be kind.").user("Hi").system("Now rhyme.").user("Go"))
    assert body["system"] == [{"text": "Be brief."}, {"text": "Be kind."}]
    assert [message["role"] for message in body["messages"]] == ["user", "system", "user"]
    with pytest.raises(InvalidPromptError, match="the prompt has only system messages"):
        body_of(Conversation.system("Be brief."))


def test_neighbours_of_the_same_role_are_one() -> None:
    call = ToolCallPart("t1", "add", "{}", {})
    sent = messages_of(
        Message.user("a"),
        Message.user("b"),
        Message.assistant("", tool_calls=[call]),
        Message.assistant("  "),
        Message.tool_result("t1", "1"),
        Message.tool_result("t2", {"n": 2}),
        Message.user("c"),
    )
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == [{"toolUse": {"toolUseId": "t1", "name": "add", "input": {}}}]
    assert sent[2]["content"] == [
        {"toolResult": {"toolUseId": "t1", "content": [{"text": "1"}]}},
        {"toolResult": {"toolUseId": "t2", "content": [{"text": '{"n": 2}'}]}},
        {"text": "c"},
    ]


def test_media() -> None:
    message = (
        Message.user("See", image=PNG, file=PDF)
        .with_file(b"a,b", media_type="text/csv", filename="my_figures: 2024.csv")
        .with_file(b"a,c", media_type="text/csv", filename="my_figures: 2024.csv")
        .with_file(b"# x", media_type="application/octet-stream", filename="notes.md")
        .with_file(b"film", media_type="video/mp4")
        .with_audio(b"ID3 rest")
    )
    assert content_of(message) == [
        {"text": "See"},
        {"image": {"format": "png", "source": {"bytes": b64(PNG)}}},
        {"document": {"format": "pdf", "name": "document", "source": {"bytes": b64(PDF)}}},
        {"document": {"format": "csv", "name": "my-figures- 2024", "source": {"bytes": b64(b"a,b")}}},
        {"document": {"format": "csv", "name": "my-figures- 2024-2", "source": {"bytes": b64(b"a,c")}}},
        {"document": {"format": "md", "name": "notes", "source": {"bytes": b64(b"# x")}}},
        {"video": {"format": "mp4", "source": {"bytes": b64(b"film")}}},
        {"audio": {"format": "mp3", "source": {"bytes": b64(b"ID3 rest")}}},
    ]


def test_media_in_s3() -> None:
    parts = (ImagePart(Media(url="s3://b/i.jpg")), FilePart(Media(url="s3://b/d.pdf", filename="d.pdf")))
    assert content_of(Message("user", parts)) == [
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://b/i.jpg"}}}},
        {"document": {"format": "pdf", "name": "d", "source": {"s3Location": {"uri": "s3://b/d.pdf"}}}},
    ]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message.user("x", image="https://a.test/i.png"), "media by URL"),
        (Message("user", (ImagePart(Media(media_type="image/tiff", data=b"x")),)), "image of the type image/tiff"),
        (Message.user("x").with_file(b"x", media_type="application/zip"), "document of the type application/zip"),
        (Message("user", (FilePart(Media(media_type="text/plain", file_id="f")),)), "media by URL"),
        (Message("user", (RefusalPart("no"),)), "Refusal is not allowed in a message of role user"),
        (Message("system", (ImagePart(Media(media_type="image/png", data=PNG)),)), "Image is not allowed"),
        (Message("tool", (TextPart("x"),)), "Text is not allowed in a message of role tool"),
        (
            Message("tool", (ToolResultPart("t", "", (AudioPart(Media(media_type="audio/wav", data=b"x")),)),)),
            "audio in a tool result",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(message: Message, words: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=words):
        messages_of(message, Message.user("x"))


def test_results_of_tools_with_media_and_failures() -> None:
    image = ImagePart(Media(media_type="image/png", data=PNG))
    result = ToolResultPart("t1", "see", (image,), is_error=True)
    (block,) = messages_of(Message("tool", (result, ToolResultPart("t2"))))[0]["content"][:1]
    assert block["toolResult"] == {
        "toolUseId": "t1",
        "content": [{"text": "see"}, {"image": {"format": "png", "source": {"bytes": b64(PNG)}}}],
        "status": "error",
    }


def test_parameters() -> None:
    body = body_of(
        HI, **with_params(temperature=0.5, top_p=0.9, max_new_tokens=7, stop=["a", "b"], service_tier="priority")
    )
    assert body["inferenceConfig"] == {"temperature": 0.5, "topP": 0.9, "maxTokens": 7, "stopSequences": ["a", "b"]}
    assert body["serviceTier"] == {"type": "priority"}
    more = body_of(HI, extra_body={"performanceConfig": {"latency": "optimized"}})
    assert more["performanceConfig"] == {"latency": "optimized"}


@pytest.mark.parametrize(
    "params",
    [
        {"seed": 1},
        {"presence_penalty": 1},
        {"frequency_penalty": 0.5},
        {"logprobs": True},
        {"top_logprobs": 2},
        {"verbosity": "low"},
        {"parallel_tool_calls": False},
        {"json_mode": True},
        {"tool_choice": "none"},
    ],
)
def test_parameters_without_a_place_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError, match=next(iter(params))):
        body_of(HI, tools=(ADD,), **with_params(**params))


def test_tools() -> None:
    system_tool = ProviderTool({"systemTool": {"name": "nova_code_interpreter"}})
    body = body_of(HI, tools=(ADD, NOP, system_tool), **with_params(tool_choice="add"))
    assert body["toolConfig"] == {
        "tools": [
            {"toolSpec": {"name": "add", "description": "Adds.", "inputSchema": {"json": ADD.parameters}}},
            {
                "toolSpec": {
                    "name": "nop",
                    "inputSchema": {"json": {"type": "object", "properties": {}, "additionalProperties": False}},
                    "strict": True,
                }
            },
            {"systemTool": {"name": "nova_code_interpreter"}},
        ],
        "toolChoice": {"tool": {"name": "add"}},
    }
    for choice, sent in {"auto": {"auto": {}}, "required": {"any": {}}}.items():
        assert body_of(HI, tools=(ADD,), **with_params(tool_choice=choice))["toolConfig"]["toolChoice"] == sent


def test_a_schema_for_the_answer() -> None:
    schema = {"type": "object", "title": "My city", "description": "A city.", "properties": {"n": {"type": "string"}}}
    sent = body_of(HI, output=schema)["outputConfig"]["textFormat"]
    inner = sent["structure"]["jsonSchema"]
    assert sent["type"] == "json_schema"
    assert (json.loads(inner["schema"]), inner["name"], inner["description"]) == (schema, "My_city", "A city.")
    with pytest.raises(InvalidPromptError, match="does not fit into JSON"):
        body_of(HI, output={"type": object()})


CACHE = {"cachePoint": {"type": "default"}}


@pytest.mark.parametrize(
    ("cache", "tools", "system", "users"),
    [
        ("tools_only", True, False, []),
        ("system_and_tools", True, True, []),
        ("last_user_message", False, False, [2]),
        ("last_2_user_messages", False, False, [1, 2]),
        ("last_3_user_messages", False, False, [0, 1, 2]),
    ],
)
def test_marks_of_the_cache(cache: Any, tools: bool, system: bool, users: list[int]) -> None:
    conversation = Conversation.system("s").user("1").assistant("x").user("2").assistant("y").user("3")
    body = body_of(conversation, tools=(ADD,), cache=cache)
    assert (body["toolConfig"]["tools"][-1] == CACHE) is tools
    assert (body["system"][-1] == CACHE) is system
    of_user = [message["content"] for message in body["messages"] if message["role"] == "user"]
    assert [index for index, content in enumerate(of_user) if content[-1] == CACHE] == users
    alone = body_of(HI, cache=cache)
    assert (alone["messages"][0]["content"][-1] == CACHE) is bool(users)


@pytest.mark.parametrize(
    ("name", "effort", "sent"),
    [
        ("us.anthropic.claude-opus-4-6-v1", "none", {"thinking": {"type": "disabled"}}),
        ("us.anthropic.claude-opus-4-6-v1", "max", {"thinking": {"type": "adaptive", "display": "summarized"}}),
        ("us.amazon.nova-2-lite-v1:0", "none", {"reasoningConfig": {"type": "disabled"}}),
        ("amazon.nova-2-lite-v1:0", "high", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        ("openai.gpt-oss-120b-1:0", "low", {"reasoning_effort": "low"}),
        ("global.openai.gpt-6-sol", "none", {"reasoning": {"effort": "none"}}),
        ("us.xai.grok-4.7", "xhigh", {"reasoning": {"effort": "xhigh"}}),
        ("deepseek.v3.2", "low", {"reasoning_effort": "high"}),
        ("zai.glm-5", "none", {"reasoning_effort": "none"}),
        ("qwen.qwen3-32b-v1:0", "max", {"reasoning_config": "high"}),
        ("us.anthropic.claude-sonnet-5-5", "max", {"thinking": {"type": "adaptive", "display": "summarized"}}),
        ("some.model", "low", None),
    ],
)
def test_how_much_to_think(name: str, effort: Any, sent: Any) -> None:
    body = body_of(HI, name=name, **with_params(reasoning_effort=effort))
    assert body.get("additionalModelRequestFields") == sent
    has_effort = "claude" in name or name == "some.model"
    assert body.get("outputConfig") == ({"effort": effort} if has_effort and effort != "none" else None)


def test_older_models_think_by_budget() -> None:
    able = Capabilities(reasoning_budget=True)
    name = "anthropic.claude-3-7-sonnet-20250219-v1:0"
    params = with_params(reasoning_effort="low", max_new_tokens=9_000)
    body = body_of(HI, name=name, capabilities=able, **params)
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2_048}}
    assert "outputConfig" not in body


@pytest.mark.parametrize(("name", "effort"), [("amazon.nova-x", "max"), ("openai.gpt-oss", "none"), ("x", "minimal")])
def test_efforts_that_are_none(name: str, effort: Any) -> None:
    with pytest.raises(UnsupportedParameterError, match="reasoning_effort"):
        body_of(HI, name=name, **with_params(reasoning_effort=effort))


def test_effort_and_schema_stand_together() -> None:
    body = body_of(HI, output={"type": "object"}, **with_params(reasoning_effort="low"))
    assert set(body["outputConfig"]) == {"textFormat", "effort"}


def test_what_the_model_wrote_and_is_no_object() -> None:
    parts = (
        ToolCallPart("t1", "f", '{"a": ', None, "the arguments are not JSON"),
        ToolCallPart("t2", "f", "[1]", [1]),
        ToolCallPart("t3", "g", "free text", custom=True),
    )
    results = (Message.tool_result(part.id, "1") for part in parts)
    blocks = messages_of(Message.user("x"), Message("assistant", parts), *results)[1]["content"]
    assert [block["toolUse"]["input"] for block in blocks] == [
        {"input": '{"a": '},
        {"input": "[1]"},
        {"input": "free text"},
    ]


def test_the_next_turn_carries_what_the_provider_needs() -> None:
    call = {"toolUseId": "s1", "name": "nova_code_interpreter", "type": "server_tool_use"}
    result = {"toolUseId": "s1", "type": "nova_code_interpreter_result", "status": "success"}
    answer = converse(
        BEGIN,
        block_delta(0, reasoningContent={"text": "Hm."}),
        block_delta(0, reasoningContent={"signature": "sig"}),
        block_stop(0),
        block_delta(1, reasoningContent={"redactedContent": "QUJD"}),
        block_stop(1),
        block_delta(2, reasoningContent={"signature": "alone"}),
        block_stop(2),
        block_start(3, toolUse=call),
        block_delta(3, toolUse={"input": '{"snippet":"1"}'}),
        block_stop(3),
        block_start(4, toolResult=result),
        block_delta(4, toolResult=[{"json": {"stdOut": "1"}}]),
        block_stop(4),
        block_delta(5, text="So:"),
        block_stop(5),
        block_start(6, toolUse={"toolUseId": "t1", "name": "add"}),
        block_delta(6, toolUse={"input": '{"a":1}'}),
        block_stop(6),
        stop("tool_use"),
        metadata(inputTokens=1),
    )
    decoder = BedrockConverse().decoder(a_call(HI))
    builder = ResponseBuilder()
    builder.add_all(decoder.feed(answer))
    assert decoder.error is None
    conversation = HI.copy().add(builder.response().content).tool_result("t1", "2")
    sent = body_of(conversation, tools=(ADD,))["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": "QUJD"}},
        {"reasoningContent": {"reasoningText": {"text": "", "signature": "alone"}}},
        {"toolUse": {**call, "input": {"snippet": "1"}}},
        {"toolResult": {**result, "content": [{"json": {"stdOut": "1"}}]}},
        {"text": "So:"},
        {"toolUse": {"toolUseId": "t1", "name": "add", "input": {"a": 1}}},
    ]


def test_what_other_providers_made_is_left_out() -> None:
    parts = (
        ReasoningPart("secret"),
        ProviderDataPart("elsewhere", "reasoning_signature", "sig"),
        ProviderDataPart(OWNER, "unknown", "x"),
        ReasoningPart("unsigned"),
        TextPart("Hello"),
    )
    conversation = Conversation([Message.user("x"), Message("assistant", parts)])
    assert messages_of(*conversation)[1]["content"] == [{"text": "Hello"}]
    row = ModelRow(id="m", name="m", provider="bedrock")
    assert build_call(row, conversation).warnings == ("reasoning_not_sent", "provider_data_not_sent")


def test_blocks_in_the_api_s_own_words() -> None:
    guard = {"guardContent": {"text": {"text": "x", "qualifiers": ["query"]}}}
    part = ProviderDataPart(OWNER, "content_block", guard)
    assert content_of(Message("user", (part,))) == [guard]
    assert body_of(Conversation([Message("system", (part,)), Message.user("x")]))["system"] == [guard]


def test_images_that_a_model_made_are_sent_back() -> None:
    known = ImagePart(Media(media_type="image/png", data=PNG))
    stored = ImagePart(Media(media_type="image/jpeg", url="s3://b/k"))
    unknown = ImagePart(Media(media_type="image/*", url="https://a.test"))
    sent = messages_of(Message.user("x"), Message("assistant", (known, stored, unknown)))
    assert sent[1]["content"] == [
        {"image": {"format": "png", "source": {"bytes": b64(PNG)}}},
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://b/k"}}}},
    ]


def test_a_history_with_calls_has_tools() -> None:
    """Without them the API answers with a 400: https://github.com/vercel/ai/issues/7528."""
    calls = [ToolCallPart("a", "f", "{}", {}), ToolCallPart("b", "g h", "{}", {}), ToolCallPart("c", "f", "{}", {})]
    conversation = Conversation.user("x").add(Message.assistant(tool_calls=calls))
    for call in calls:
        conversation.tool_result(call.id, "1")
    body = body_of(conversation)
    specs = [tool["toolSpec"] for tool in body["toolConfig"]["tools"]]
    assert [spec["name"] for spec in specs] == ["f", "g_h"]
    assert specs[0]["inputSchema"] == {"json": {"type": "object", "properties": {}}}
    assert specs[0]["description"] == "This tool is no longer available. Do not call it."
    assert "toolChoice" not in body["toolConfig"]
    assert [tool["toolSpec"]["name"] for tool in body_of(conversation, tools=(ADD,))["toolConfig"]["tools"]] == ["add"]
    del body["toolConfig"]
    with pytest.raises(BadRequestError, match="The toolConfig field must be defined"):
        find_encoder("bedrock-converse").parse_request(json.dumps(body).encode(), model="m")


def test_a_history_without_calls_has_none() -> None:
    assert "toolConfig" not in body_of(HI)


def test_a_text_file_in_another_format_keeps_its_name() -> None:
    message = Message.user("a").with_file(b"x = 1", filename="main.py").with_file(b"b", filename="b.txt")
    documents = [block["document"] for block in messages_of(message)[0]["content"][1:]]
    assert [(each["format"], each["name"]) for each in documents] == [("txt", "main-py"), ("txt", "b")]
