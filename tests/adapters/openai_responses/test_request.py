"""Requests to the Responses API, as parsed JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.adapters.openai_responses.adapter import OpenAIResponses
from lm_deluge.adapters.openai_responses.items import ECHOED
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.openai_responses import request as openai_responses_request
from lm_deluge.errors import ConfigurationError, UnsupportedParameterError
from lm_deluge.models.registry import find_model, find_provider
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
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
from lm_deluge.wire.http import HttpRequest
from samples.responses_bytes import completed, created, read

PNG = b"\x89PNG\r\n\x1a\n rest"
PDF = b"%PDF-1.7 rest"
HI = Conversation.user("Hi")
ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
OWNER = "recording"


def a_call(conversation: Conversation, *, capabilities: Capabilities | None = None, **fields: Any) -> Call:
    row = ProviderRow(
        id="acme", otel_name="acme", adapter="openai-responses", base_url="https://acme.test/v1", opaque_as=OWNER
    )
    model = ModelRow(id="acme:m", name="m-1", provider="acme", capabilities=capabilities or Capabilities())
    return Call(**{"model": model, "provider": row, "base_url": row.base_url, "conversation": conversation, **fields})


def request_of(conversation: Conversation, **fields: Any) -> HttpRequest:
    return OpenAIResponses().build_request(a_call(conversation, **fields))


def body_of(conversation: Conversation, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request_of(conversation, **fields).body)
    return body


def items_of(*messages: Message, **fields: Any) -> list[Any]:
    items: list[Any] = body_of(Conversation(messages), **fields)["input"]
    return items


def with_params(**params: Any) -> dict[str, Any]:
    body = body_of(HI, params=SamplingParams(**params))
    return {name: value for name, value in body.items() if name not in ("model", "input", "store", "stream")}


def test_the_whole_of_a_simple_request() -> None:
    request = request_of(HI)
    assert (request.method, request.url) == ("POST", "https://acme.test/v1/responses")
    assert request.headers == {"content-type": "application/json", "accept": "text/event-stream"}
    assert request.body == b'{"model":"m-1","input":[{"role":"user","content":"Hi"}],"store":false,"stream":true}'
    assert request_of(HI, is_streamed=False).body == (
        b'{"model":"m-1","input":[{"role":"user","content":"Hi"}],"store":false}'
    )


def test_parameters() -> None:
    assert with_params(
        temperature=0.5, top_p=0.9, max_new_tokens=64, parallel_tool_calls=False, service_tier="flex", verbosity="low"
    ) == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 64,
        "parallel_tool_calls": False,
        "service_tier": "flex",
        "text": {"verbosity": "low"},
    }
    logprobs = ["message.output_text.logprobs"]
    assert with_params(logprobs=True) == {"include": logprobs}
    assert with_params(top_logprobs=3) == {"include": logprobs, "top_logprobs": 3}
    assert with_params(json_mode=True) == {"text": {"format": {"type": "json_object"}}}


@pytest.mark.parametrize("name", ["stop", "seed", "presence_penalty", "frequency_penalty"])
def test_unsupported_parameters_are_refused_by_name(name: str) -> None:
    value = "END" if name == "stop" else 1
    with pytest.raises(UnsupportedParameterError, match=f"acme takes no {name} through openai-responses") as caught:
        request_of(HI, params=SamplingParams(**{name: value}))
    assert caught.value.parameter == name


ENCRYPTED = ["reasoning.encrypted_content"]


def test_reasoning() -> None:
    high = with_params(reasoning_effort="high")
    assert high == {"include": ENCRYPTED, "reasoning": {"effort": "high", "summary": "auto"}}
    assert with_params(reasoning_effort="none") == {"reasoning": {"effort": "none"}}
    known = body_of(HI, capabilities=Capabilities(reasoning=True))
    assert (known["include"], known["reasoning"]) == (ENCRYPTED, {"summary": "auto"})


def test_a_schema() -> None:
    schema = {"title": "My answer", "type": "object", "properties": {}, "additionalProperties": False}
    assert body_of(HI, output=schema)["text"] == {
        "format": {"type": "json_schema", "name": "My_answer", "schema": schema, "strict": True}
    }
    assert body_of(HI, output={"type": "object"})["text"]["format"]["strict"] is False


def test_tools_and_the_choice_of_one() -> None:
    search = ProviderTool({"type": "web_search", "search_context_size": "low"})
    server = ProviderTool({"type": "mcp", "server_label": "wiki", "server_url": "https://wiki.test"})
    sql = ProviderTool({"type": "custom", "name": "sql"})
    own = ProviderTool({"type": "function", "name": "late", "defer_loading": True})
    tools = (ADD, Tool(name="nop", strict=True), search, server, sql, own)
    assert body_of(HI, tools=tools)["tools"] == [
        {"type": "function", "name": "add", "parameters": ADD.parameters, "strict": False, "description": "Adds."},
        {
            "type": "function",
            "name": "nop",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
            "strict": True,
        },
        *(tool.data for tool in (search, server, sql, own)),
    ]
    choices = {
        "required": "required",
        "none": "none",
        "add": {"type": "function", "name": "add"},
        "web_search": {"type": "web_search"},
        "mcp": {"type": "mcp", "server_label": "wiki"},
        "sql": {"type": "custom", "name": "sql"},
        "late": {"type": "function", "name": "late"},
    }
    for name, sent in choices.items():
        assert body_of(HI, tools=tools, params=SamplingParams(tool_choice=name))["tool_choice"] == sent
    with pytest.raises(ConfigurationError, match="names no tool"):
        body_of(HI, tools=tools, params=SamplingParams(tool_choice="gone"))


# The conversation.


def test_messages_of_the_system_stay_where_they_stand() -> None:
    items = items_of(Message.system("A"), Message.user("B"), Message.developer("C").with_text("D"))
    assert items == [
        {"role": "system", "content": "A"},
        {"role": "user", "content": "B"},
        {"role": "developer", "content": [{"type": "input_text", "text": "C"}, {"type": "input_text", "text": "D"}]},
    ]


def test_media() -> None:
    user = (
        Message.user("Look:")
        .with_image("https://example.org/a.png", detail="low")
        .with_image(PNG)
        .with_image(Media(file_id="file-1"))
        .with_file(PDF, filename="a.pdf")
        .with_file("https://example.org/a.pdf")
        .with_file(Media(file_id="file-2"))
    )
    png, pdf = (base64.b64encode(data).decode() for data in (PNG, PDF))
    (sent,) = items_of(user)
    assert sent["content"] == [
        {"type": "input_text", "text": "Look:"},
        {"type": "input_image", "detail": "low", "image_url": "https://example.org/a.png"},
        {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{png}"},
        {"type": "input_image", "detail": "auto", "file_id": "file-1"},
        {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
        {"type": "input_file", "file_id": "file-2"},
    ]


def test_parts_that_a_message_cannot_contain_are_refused() -> None:
    with pytest.raises(UnsupportedParameterError, match="acme takes no audio"):
        items_of(Message.user("Listen").with_audio(b"ID3 rest"))
    with pytest.raises(UnsupportedParameterError, match="acme takes no name of a message"):
        items_of(Message("user", (TextPart("Hi"),), "ann"))
    with pytest.raises(UnsupportedParameterError, match="ToolCall is not allowed in a message of role user"):
        items_of(Message("user", (ToolCallPart("c", "f"),)))
    with pytest.raises(UnsupportedParameterError, match="Image is not allowed in a message of role system"):
        items_of(Message("system", (ImagePart(Media(url="https://a.test")),)))
    with pytest.raises(UnsupportedParameterError, match="Text is not allowed in a message of role tool"):
        items_of(Message("tool", (TextPart("x"),)))
    row = ProviderRow(id="acme", otel_name="acme", adapter="openai-chat", base_url="https://acme.test")
    call = msgspec.structs.replace(a_call(HI), provider=row, background=True)
    with pytest.raises(UnsupportedParameterError, match="acme takes no background through openai-chat"):
        OpenAIChat().build_request(call)


def test_results_of_tools() -> None:
    calls = Message.assistant(
        tool_calls=[ToolCallPart("c1", "add", '{"a":1}', {"a": 1}), ToolCallPart("c2", "sql", "SELECT", custom=True)]
    )
    results = Message(
        "tool",
        (
            ToolResultPart("c1", "Done:", (ImagePart(Media(url="https://a.test/i.png")), FilePart(Media(file_id="f")))),
            ToolResultPart("c1", "", (ImagePart(Media(file_id="i"), "low"),)),
            ToolResultPart("c2", "1 row"),
            ProviderDataPart(OWNER, "output_item", {"type": "mcp_approval_response", "approve": True}),
        ),
    )
    assert items_of(calls, results) == [
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT"},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [
                {"type": "input_text", "text": "Done:"},
                {"type": "input_image", "detail": "auto", "image_url": "https://a.test/i.png"},
                {"type": "input_file", "file_id": "f"},
            ],
        },
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [{"type": "input_image", "detail": "low", "file_id": "i"}],
        },
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "1 row"},
        {"type": "mcp_approval_response", "approve": True},
    ]
    with pytest.raises(UnsupportedParameterError, match="audio"):
        items_of(Message("tool", (ToolResultPart("c", "", (AudioPart(Media(data=b"x")),)),)))


ANSWER = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "encrypted_content": "gA",
        "summary": [{"type": "summary_text", "text": "Hm."}],
    },
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "phase": "commentary",
        "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
    },
    {"type": "reasoning", "id": "rs_2", "encrypted_content": "gB", "summary": []},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a": 1}', "namespace": "crm"},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "iVBORw0KGgo="},
]


def test_a_second_turn_sends_all_that_the_provider_made() -> None:
    response = read(created(), completed(*ANSWER))
    conversation = HI.add(response.content).tool_result("c1", "sunny")
    call = a_call(conversation)
    assert body_of(conversation)["input"] == [
        {"role": "user", "content": "Hi"},
        ANSWER[0],
        ANSWER[1],
        {"role": "assistant", "content": "I look.", "phase": "commentary"},
        ANSWER[3],
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}', "namespace": "crm"},
        ANSWER[5],
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    assert dropped_parts(call, OpenAIResponses()) == ()


def test_opaque_data_is_not_sent_to_another_provider() -> None:
    conversation = Conversation.user("Hi").add(read(created(), completed(*ANSWER)).content).tool_result("c1", "sunny")
    row = ProviderRow(id="other", otel_name="other", adapter="openai-responses", base_url="https://other.test")
    call = msgspec.structs.replace(a_call(conversation), provider=row)
    sent = json.loads(OpenAIResponses().build_request(call).body)["input"]
    assert sent[1:] == [
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    assert set(dropped_parts(call, OpenAIResponses())) == {
        "reasoning_not_sent",
        "provider_data_not_sent",
        "image_not_sent",
    }


def test_a_call_out_of_a_program_names_it_in_its_result() -> None:
    caller = {"type": "program", "caller_id": "cm_1"}
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "caller": caller}
    conversation = HI.add(read(created(), completed(item)).content).tool_result("c1", "7")
    call, result = body_of(conversation)["input"][-2:]
    assert call["caller"] == caller
    assert result == {"type": "function_call_output", "call_id": "c1", "output": "7", "caller": caller}


def test_reasoning_with_only_an_id_is_sent_only_if_responses_are_stored() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    answer = Message("assistant", (ProviderDataPart(OWNER, "reasoning", item), TextPart("42")))
    assert items_of(answer) == [{"role": "assistant", "content": "42"}]
    assert (
        items_of(answer, background=True) == items_of(answer, extra_body={"store": True}) == [item, *items_of(answer)]
    )
    shown = {**item, "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert items_of(Message("assistant", (ProviderDataPart(OWNER, "reasoning", shown),))) == [shown]


def test_refusals_and_opaque_data_without_an_item() -> None:
    parts = (
        ReasoningPart("hm"),
        TextPart("Well."),
        RefusalPart("No."),
        ProviderDataPart(OWNER, "function_call", {"namespace": "lost"}),
        ProviderDataPart(OWNER, "reasoning", "no object"),
    )
    content = [{"type": "output_text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
    assert items_of(Message("assistant", parts)) == [{"role": "assistant", "content": content}]


# Background mode.


def test_background_needs_the_store() -> None:
    body = body_of(HI, background=True)
    assert (body["background"], body["store"], body["stream"]) == (True, True, True)


def test_a_response_is_resumed_and_cancelled_by_its_id() -> None:
    adapter = OpenAIResponses()
    call = a_call(HI, params=SamplingParams(reasoning_effort="low"), extra_headers={"X-Team": "a"})
    rest = adapter.build_resume(call, "resp_1/2", 17)
    assert (rest.method, rest.body) == ("GET", b"")
    assert rest.url == (
        "https://acme.test/v1/responses/resp_1%2F2?stream=true&starting_after=17"
        "&include%5B%5D=reasoning.encrypted_content"
    )
    assert rest.headers == {"accept": "text/event-stream", "x-team": "a"}
    end = adapter.build_cancel(call, "resp_1")
    assert (end.method, end.url) == ("POST", "https://acme.test/v1/responses/resp_1/cancel")


# Rows.


def test_azure_has_its_own_path() -> None:
    row = find_provider("azure-responses")
    model = ModelRow(id="azure-responses:gpt-5", name="gpt-5", provider=row.id)
    call = Call(model=model, provider=row, base_url="https://my.openai.azure.com", conversation=HI)
    assert OpenAIResponses().build_request(call).url == "https://my.openai.azure.com/openai/v1/responses"
    assert OpenAIResponses().build_cancel(call, "r").url == "https://my.openai.azure.com/openai/v1/responses/r/cancel"


def test_a_model_of_openai_is_known_by_this_api_too() -> None:
    model = find_model("openai-responses:gpt-5")
    assert (model.provider, model.name, model.capabilities.reasoning) == ("openai-responses", "gpt-5", True)
    assert model.price == find_model("gpt-5").price
    assert find_model("azure-responses:gpt-5").provider == "azure-responses"


def test_both_sides_of_the_wire_know_the_same_items() -> None:
    assert {
        *openai_responses_request.WHOLE_ITEMS,
        *openai_responses_request.PARSED_FIELDS,
        "reasoning",
        "output_item",
    } == ECHOED
