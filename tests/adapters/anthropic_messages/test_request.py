"""Conversations and the requests to Anthropic built from them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.adapter import AnthropicMessages
from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.config import SamplingParams
from lm_deluge.errors import ConfigurationError, UnsupportedParameterError
from lm_deluge.models.registry import find_provider
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
from samples.anthropic_bytes import answer, block, call, event, read, start, text

ROW = ProviderRow(
    id="anthropic",
    otel_name="anthropic",
    adapter="anthropic-messages",
    base_url="https://api.acme.test",
    headers={"anthropic-version": "2023-06-01"},
    opaque_as="recording",  # the provider id that `read` decodes responses under
    prompt_cache="explicit",
)
WEATHER = Tool(name="weather", description="Tells it.", parameters={"type": "object", "properties": {}})
PNG = b"\x89PNG\r\n\x1a\n"


def a_call(
    conversation: Conversation | str,
    *,
    row: ProviderRow = ROW,
    able: Capabilities | None = None,
    max_output_tokens: int | None = None,
    **fields: Any,
) -> Call:
    model = ModelRow(
        id="claude",
        name="claude-x",
        provider=row.id,
        capabilities=able or Capabilities(),
        max_output_tokens=max_output_tokens,
    )
    if isinstance(conversation, str):
        conversation = Conversation.user(conversation)
    return Call(model=model, provider=row, base_url=row.base_url, conversation=conversation, **fields)


def request_of(conversation: Conversation | str = "Hi", **fields: Any) -> HttpRequest:
    return AnthropicMessages().build_request(a_call(conversation, **fields))


def body_of(conversation: Conversation | str = "Hi", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request_of(conversation, **fields).body)
    return body


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    messages_: list[dict[str, Any]] = body_of(Conversation(messages))["messages"]
    return messages_


def refusal_of(**fields: Any) -> str:
    with pytest.raises(UnsupportedParameterError) as caught:
        request_of(**fields)
    return str(caught.value)


class TestTheRequest:
    def test_a_stream(self) -> None:
        request = request_of("Hi")
        assert request.url == "https://api.acme.test/v1/messages"
        assert json.loads(request.body) == {
            "model": "claude-x",
            "max_tokens": 32_000,
            "stream": True,
            "messages": [{"role": "user", "content": "Hi"}],
        }
        assert request.headers["accept"] == "text/event-stream"
        assert request.headers["anthropic-version"] == "2023-06-01"

    def test_a_plain_answer(self) -> None:
        request = request_of("Hi", is_streamed=False)
        assert "stream" not in json.loads(request.body)
        assert request.headers["accept"] == "application/json"

    def test_the_row_of_anthropic(self) -> None:
        row = find_provider("anthropic")
        assert (row.base_url, row.auth, row.key_header) == ("https://api.anthropic.com", "header", "x-api-key")
        assert (row.base_url_env, row.key_env) == (
            ("ANTHROPIC_BASE_URL",),
            ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        )
        assert (row.opaque_owner, row.prompt_cache) == ("anthropic", "explicit")
        assert row.headers == {"anthropic-version": "2023-06-01"}

    def test_betas_and_other_fields_are_the_users(self) -> None:
        request = request_of(extra_headers={"Anthropic-Beta": "a,b"}, extra_body={"top_k": 5, "max_tokens": 7})
        assert request.headers["anthropic-beta"] == "a,b"
        assert json.loads(request.body)["top_k"] == 5
        assert json.loads(request.body)["max_tokens"] == 7

    @pytest.mark.parametrize(("is_streamed", "verb"), [(True, "streamRawPredict"), (False, "rawPredict")])
    def test_vertex_wants_the_model_in_the_path_and_a_version_in_the_body(
        self, *, is_streamed: bool, verb: str
    ) -> None:
        row = ProviderRow(
            id="vertex",
            otel_name="gcp.vertex_ai",
            adapter="anthropic-messages",
            base_url="https://vertex.test/v1/publishers/anthropic",
            path="/models/{model}:rawPredict",
            stream_path="/models/{model}:streamRawPredict",
            quirks=msgspec.structs.replace(ROW.quirks, anthropic_version="vertex-2023-10-16"),
        )
        request = request_of(row=row, is_streamed=is_streamed)
        body = json.loads(request.body)
        assert request.url == f"https://vertex.test/v1/publishers/anthropic/models/claude-x:{verb}"
        assert body["anthropic_version"] == "vertex-2023-10-16"
        assert "model" not in body
        assert ("stream" in body) == is_streamed


class TestMessages:
    def test_what_the_system_says_is_joined_in_order(self) -> None:
        body = body_of(Conversation.system("One.").user("Hi").developer("Two.").assistant("Ho").user("Hm"))
        assert body["system"] == [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]

    def test_one_thing_that_the_system_says_is_text(self) -> None:
        assert body_of(Conversation.system("One.").user("Hi"))["system"] == "One."

    def test_messages_of_one_side_are_one(self) -> None:
        assert messages_of(Message.user("a"), Message.user("b"), Message.assistant("c"), Message.assistant("d")) == [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
        ]

    def test_results_of_parallel_calls_come_back_together(self) -> None:
        calls = [ToolCallPart("a", "f", '{"x": 1}', {"x": 1}), ToolCallPart("b", "f", "", {})]
        assert messages_of(
            Message.user("Hi"),
            Message.assistant("So", tool_calls=calls),
            Message.tool_result("a", "1"),
            Message("tool", (ToolResultPart("b", "no", is_error=True),)),
            Message.user("Well?"),
        ) == [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "So"},
                    {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "b", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                    {"type": "tool_result", "tool_use_id": "b", "content": "no", "is_error": True},
                    {"type": "text", "text": "Well?"},
                ],
            },
        ]

    def test_images(self) -> None:
        message = Message.user("Look").with_image(PNG).with_image("https://a.test/b.png")
        message = message.with_image(Media(file_id="file_1"))
        assert [block["source"] for block in messages_of(message)[0]["content"][1:]] == [
            {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
            {"type": "url", "url": "https://a.test/b.png"},
            {"type": "file", "file_id": "file_1"},
        ]

    def test_documents(self) -> None:
        message = Message.user("Read").with_file(b"%PDF-1", filename="a.pdf").with_file("https://a.test/b.pdf")
        message = message.with_file(Media(file_id="file_1")).with_file("Grüße".encode(), media_type="text/markdown")
        assert messages_of(message)[0]["content"][1:] == [
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"},
                "title": "a.pdf",
            },
            {"type": "document", "source": {"type": "url", "url": "https://a.test/b.pdf"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        ]

    def test_media_in_results(self) -> None:
        media = (ImagePart(Media(url="https://a.test")), FilePart(Media(file_id="f")))
        results = Message("tool", (ToolResultPart("a", "see", media), ToolResultPart("b", "", media[:1])))
        image = {"type": "image", "source": {"type": "url", "url": "https://a.test"}}
        assert [block["content"] for block in messages_of(results)[0]["content"]] == [
            [{"type": "text", "text": "see"}, image, {"type": "document", "source": {"type": "file", "file_id": "f"}}],
            [image],
        ]

    def test_blank_text_is_left_out(self) -> None:
        turn = Message("assistant", (TextPart("\n"), ToolCallPart("a", "f", "", {}), TextPart("")))
        assert messages_of(Message.user("Hi"), Message.user(" "), turn, Message.tool_result("a", ""))[1:] == [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": ""}]},
        ]

    def test_an_answer_that_says_nothing_is_left_out(self) -> None:
        assert messages_of(Message.user("a"), Message.assistant(""), Message.user("b")) == [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        ]

    def test_words_in_the_models_mouth_end_without_a_blank(self) -> None:
        assert messages_of(Message.user("Hi"), Message.assistant("The answer is "))[1] == {
            "role": "assistant",
            "content": "The answer is",
        }

    def test_a_refusal_is_text(self) -> None:
        assert messages_of(Message.user("a"), Message("assistant", (RefusalPart("No."),)))[1]["content"] == "No."

    def test_ids_of_other_providers_are_made_to_fit(self) -> None:
        turn = Message.assistant(tool_calls=[ToolCallPart("functions.f:0", "f", "", {})])
        found = messages_of(turn, Message.tool_result("functions.f:0", "1"))
        assert found[0]["content"][0]["id"] == found[1]["content"][0]["tool_use_id"] == "functions_f_0"

    @pytest.mark.parametrize(
        ("part", "given"),
        [
            (ToolCallPart("a", "f", '{"x', None, "no JSON"), {"INVALID_JSON": '{"x'}),
            (ToolCallPart("a", "f", "[1]", [1]), {"INVALID_JSON": "[1]"}),
            (ToolCallPart("a", "f", "free text", custom=True), {"input": "free text"}),
        ],
    )
    def test_input_is_always_an_object(self, part: ToolCallPart, given: dict) -> None:
        found = messages_of(Message.user("a"), Message.assistant(tool_calls=[part]), Message.tool_result("a", "1"))
        assert found[1]["content"][0]["input"] == given

    def test_a_block_in_anthropics_own_words(self) -> None:
        found = {"type": "search_result", "source": "s", "title": "t", "content": [], "citations": {"enabled": True}}
        message = Message("user", (TextPart("a"), ProviderDataPart("recording", "block", found)))
        assert messages_of(message)[0]["content"][1] == found


class TestWhatItCannotTake:
    @pytest.mark.parametrize(
        ("role", "part", "what"),
        [
            ("user", AudioPart(Media(media_type="audio/wav", data=b"x")), "audio"),
            ("user", FilePart(Media(media_type="application/zip", data=b"x")), "file of type application/zip"),
            ("user", FilePart(Media(media_type="text/plain", data=b"\xff")), "file of type text/plain"),
            ("user", ImagePart(Media(url="https://a.test"), "low"), "detail of an image"),
            ("user", ReasoningPart("hm"), "Reasoning is not allowed in a message of role user"),
            ("user", ToolResultPart("a", "b"), "ToolResult is not allowed in a message of role user"),
            ("user", ProviderDataPart("openai", "block", {}), "ProviderData is not allowed"),
            ("user", ProviderDataPart("recording", "signature", "s"), "ProviderData is not allowed"),
            ("tool", TextPart("a"), "Text is not allowed in a message of role tool"),
            ("system", ImagePart(Media(url="https://a.test")), "Image is not allowed in a message of role system"),
        ],
    )
    def test_parts(self, role: Any, part: Any, what: str) -> None:
        assert what in refusal_of(conversation=Conversation([Message(role, (part,))]))

    def test_names(self) -> None:
        conversation = Conversation([Message("user", (TextPart("a"),), "Ann")])
        assert "name of a message" in refusal_of(conversation=conversation)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("seed", 1),
            ("presence_penalty", 0.0),
            ("frequency_penalty", 1),
            ("logprobs", True),
            ("top_logprobs", 0),
            ("verbosity", "low"),
            ("json_mode", True),
            ("temperature", 1.5),
        ],
    )
    def test_parameters(self, name: str, value: Any) -> None:
        assert name in refusal_of(params=SamplingParams(**{name: value}))

    def test_a_tool_that_is_not_there(self) -> None:
        with pytest.raises(ConfigurationError, match="names no tool"):
            request_of(params=SamplingParams(tool_choice="nope"), tools=(WEATHER,))


class TestParameters:
    def test_sampling(self) -> None:
        params = SamplingParams(temperature=1, top_p=0.5, max_new_tokens=9, stop="x", service_tier="standard_only")
        body = body_of(params=params)
        del body["model"], body["messages"], body["stream"]
        assert body == {
            "max_tokens": 9,
            "temperature": 1,
            "top_p": 0.5,
            "stop_sequences": ["x"],
            "service_tier": "standard_only",
        }

    def test_the_limit_is_the_models_where_it_is_known(self) -> None:
        assert body_of(max_output_tokens=4_096)["max_tokens"] == 4_096

    def test_tools(self) -> None:
        search = {"type": "web_search_20250305", "name": "web_search"}
        tools = (WEATHER, Tool(name="f", strict=True), ProviderTool(search))
        assert body_of(tools=tools)["tools"] == [
            {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object", "properties": {}}},
            {
                "name": "f",
                "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
                "strict": True,
            },
            search,
        ]

    @pytest.mark.parametrize(
        ("choice", "is_parallel", "expected"),
        [
            (None, None, None),
            (None, True, None),
            ("auto", None, {"type": "auto"}),
            ("none", False, {"type": "none"}),
            ("required", None, {"type": "any"}),
            ("weather", None, {"type": "tool", "name": "weather"}),
            (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
            ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
            ("weather", False, {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}),
        ],
    )
    def test_the_choice_of_tools(self, choice: str | None, is_parallel: bool | None, expected: Any) -> None:
        params = SamplingParams(tool_choice=choice, parallel_tool_calls=is_parallel)
        assert body_of(params=params, tools=(WEATHER,)).get("tool_choice") == expected

    @pytest.mark.parametrize(
        ("effort", "word"),
        [
            ("minimal", "low"),
            ("low", "low"),
            ("medium", "medium"),
            ("high", "high"),
            ("xhigh", "xhigh"),
            ("max", "max"),
        ],
    )
    def test_how_hard_to_think(self, effort: Any, word: str) -> None:
        body = body_of(params=SamplingParams(reasoning_effort=effort))
        thinking = {"type": "adaptive", "display": "summarized"}  # without it, Claude 4.7 and later hide the text
        assert (body["thinking"], body["output_config"]) == (thinking, {"effort": word})

    @pytest.mark.parametrize(
        ("effort", "limit", "budget"),
        [
            ("minimal", 32_000, 1_024),
            ("low", 32_000, 2_048),
            ("medium", 32_000, 8_192),
            ("high", 32_000, 16_384),
            ("xhigh", 64_000, 32_768),
            ("max", 100_000, 63_999),
            ("max", 10_000, 8_000),
            ("high", 1_025, 1_024),
        ],
    )
    def test_how_long_to_think(self, effort: Any, limit: int, budget: int) -> None:
        params = SamplingParams(reasoning_effort=effort, max_new_tokens=limit)
        body = body_of(params=params, able=Capabilities(reasoning_budget=True))
        assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
        assert "output_config" not in body

    def test_thinking_needs_room(self) -> None:
        params = SamplingParams(reasoning_effort="low", max_new_tokens=1_024)
        assert "needs 1024 thinking tokens or more" in refusal_of(
            params=params, able=Capabilities(reasoning_budget=True)
        )

    @pytest.mark.parametrize("is_budget", [True, False])
    def test_not_to_think(self, *, is_budget: bool) -> None:
        body = body_of(params=SamplingParams(reasoning_effort="none"), able=Capabilities(reasoning_budget=is_budget))
        assert (body["thinking"], "output_config" in body) == ({"type": "disabled"}, False)

    def test_structured_output_closes_its_objects(self) -> None:
        inner = {"type": "object", "properties": {"a": {"enum": [{"type": "object"}]}}}
        schema = {"type": "object", "properties": {"x": inner, "y": {"type": "array", "items": [inner]}}}
        open_one = {"type": "object", "additionalProperties": True}
        closed = {**inner, "additionalProperties": False}
        body = body_of(output={**schema, "$defs": {"o": open_one}}, params=SamplingParams(reasoning_effort="low"))
        assert body["output_config"] == {
            "effort": "low",
            "format": {
                "type": "json_schema",
                "schema": {
                    "type": "object",
                    "properties": {"x": closed, "y": {"type": "array", "items": [closed]}},
                    "$defs": {"o": open_one},
                    "additionalProperties": False,
                },
            },
        }


MARK = {"type": "ephemeral"}


class TestCache:
    CONVERSATION = (
        Conversation.system("s")
        .user("a")
        .add(Message.assistant(tool_calls=[ToolCallPart("t", "f", "", {})]))
        .tool_result("t", "1")
        .assistant("b")
        .user("c")
    )

    def marks(self, cache: Any, **fields: Any) -> list[str]:
        """Return the names of the marked places."""
        body = body_of(**{"conversation": self.CONVERSATION, "tools": (WEATHER, WEATHER), **fields}, cache=cache)
        places = {f"tool {at}": [tool] for at, tool in enumerate(body.get("tools", ()))}
        places["system"] = body.get("system", [])
        places |= {str(at): message["content"] for at, message in enumerate(body["messages"])}
        return [
            name
            for name, blocks in places.items()
            for block in blocks
            if isinstance(block, dict) and block.get("cache_control") == MARK
        ]

    def test_tools(self) -> None:
        assert self.marks("tools_only") == ["tool 1"]

    def test_system_and_tools(self) -> None:
        assert self.marks("system_and_tools") == ["tool 1", "system"]

    @pytest.mark.parametrize(
        ("cache", "places"),
        [
            ("last_user_message", ["4"]),
            ("last_2_user_messages", ["2", "4"]),
            ("last_3_user_messages", ["0", "2", "4"]),
        ],
    )
    def test_messages_of_the_user_and_results(self, cache: str, places: list[str]) -> None:
        assert self.marks(cache) == places

    def test_nothing_is_marked_where_nothing_is(self) -> None:
        assert self.marks("system_and_tools", conversation=Conversation.user("a"), tools=()) == []

    def test_a_tool_of_the_user_stays_as_it_is(self) -> None:
        data = {"type": "web_search_20250305", "name": "web_search"}
        body_of(tools=(ProviderTool(data),), cache="tools_only")
        assert "cache_control" not in data


class TestTheSecondTurn:
    """The blocks of a response are sent back unchanged."""

    BLOCKS = (
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "thinking", "thinking": "", "signature": "hidden"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "https://a.test"}]},
        {"type": "text", "text": "As "},
        {"type": "text", "text": "said", "citations": [{"type": "page_location", "cited_text": "c"}]},
        {"type": "text", "text": "."},
        {"type": "compaction", "content": "So far."},
        {"type": "not_known_yet", "a": 1},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}, "caller": {"type": "code", "tool_id": "s"}},
        {"type": "tool_use", "id": "u", "name": "f", "input": {}},
    )
    BODY = answer(*(block(index, each) for index, each in enumerate(BLOCKS)), reason="tool_use")

    def test_all_blocks_come_back(self) -> None:
        conversation = Conversation.user("Hi").add(read(self.BODY).content).tool_result("t", "1").tool_result("u", "2")
        call = a_call(conversation)
        body = json.loads(AnthropicMessages().build_request(call).body)
        assert body["messages"][1] == {"role": "assistant", "content": list(self.BLOCKS)}
        assert dropped_parts(call, AnthropicMessages()) == ()

    def test_a_paused_answer_is_sent_back_as_it_is(self) -> None:
        used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
        response = read(answer(text(0, "Wait. "), block(1, used), reason="pause_turn"))
        assert response.finish_reason == "pause"
        body = body_of(Conversation.user("Hi").add(response.content))
        assert body["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "Wait. "}, used]}

    def test_another_provider_does_not_get_what_is_opaque(self) -> None:
        conversation = Conversation.user("Hi").add(read(self.BODY).content).tool_result("t", "1").tool_result("u", "2")
        call = a_call(conversation, row=msgspec.structs.replace(ROW, opaque_as="somebody"))
        body = json.loads(AnthropicMessages().build_request(call).body)
        assert [block["type"] for block in body["messages"][1]["content"]] == [*["text"] * 3, *["tool_use"] * 2]
        assert dropped_parts(call, AnthropicMessages()) == ("reasoning_not_sent", "provider_data_not_sent")

    def test_a_thought_without_a_signature_is_not_sent(self) -> None:
        conversation = Conversation.user("Hi").add(
            read(answer(block(0, {"type": "thinking", "thinking": "Hm"}), text(1, "a"))).content
        )
        call = a_call(conversation)
        assert json.loads(AnthropicMessages().build_request(call).body)["messages"][1]["content"] == "a"
        assert dropped_parts(call, AnthropicMessages()) == ("reasoning_not_sent",)

    PLACE = event("message_delta", delta={"stop_reason": "tool_use", "container": {"id": "container_1"}})

    def test_code_goes_on_where_it_ran(self) -> None:
        conversation = Conversation.user("Hi").add(read(start() + call(0, "f") + self.PLACE).content)
        assert body_of(conversation.copy().tool_result("toolu_0", "1"))["container"] == "container_1"

    def test_a_new_question_has_a_place_of_its_own(self) -> None:
        conversation = Conversation.user("Hi").add(read(start() + call(0, "f") + self.PLACE).content)
        assert "container" not in body_of(conversation.tool_result("toolu_0", "1").user("Next"))

    def test_an_answer_of_a_plain_chat_has_no_container(self) -> None:
        assert "container" not in body_of(Conversation.user("Hi").assistant("Ho"))
