"""Requests to Gemini, and responses sent back on the next turn."""

from __future__ import annotations

import base64
import json

import pytest

from lm_deluge import Conversation, Message, SamplingParams, Tool
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.request import build_call
from lm_deluge.errors import ConfigurationError, InvalidPromptError, UnsupportedParameterError
from lm_deluge.models.registry import find_model
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import ImagePart, ProviderDataPart, ReasoningPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import ProviderTool
from lm_deluge.response import ResponseBuilder
from lm_deluge.testing import decode_events
from samples.gemini_bytes import answer, sse

API = "gemini-generate"
PNG = b"\x89PNG\r\n\x1a\n"
SKIPPED = "skip_thought_signature_validator"
WEATHER = Tool(name="weather", description="Tells it.", parameters={"type": "object", "properties": {"city": {}}})


def request_of(prompt, model="gemini:gemini-3-pro", **options):
    call = build_call(find_model(model), prompt, **options)
    return find_adapter(API).build_request(call)


def body_of(prompt, model="gemini:gemini-3-pro", **options):
    return json.loads(request_of(prompt, model, **options).body)


def config_of(model="gemini:gemini-3-pro", **params):
    return body_of("Hi", model, params=SamplingParams(**params)).get("generationConfig")


def test_where_it_goes() -> None:
    request = request_of("Hi")
    base = "https://generativelanguage.googleapis.com/v1beta"
    assert request.url == f"{base}/models/gemini-3-pro:streamGenerateContent?alt=sse"
    assert json.loads(request.body) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    assert request_of("Hi", "gemini:models/x").url == f"{base}/models/x:streamGenerateContent?alt=sse"
    assert request_of("Hi", "gemini:tunedModels/x").url == f"{base}/tunedModels/x:streamGenerateContent?alt=sse"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (None, "aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
    ],
)
def test_where_vertex_is(location, host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    if location:
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", location)
    place = f"projects/my-project/locations/{location or 'global'}/publishers"
    assert request_of("Hi", "vertex:gemini-3-pro").url == (
        f"https://{host}/v1beta1/{place}/google/models/gemini-3-pro:streamGenerateContent?alt=sse"
    )
    call = build_call(find_model("vertex-anthropic:claude-x"), "Hi")
    request = find_adapter("anthropic-messages").build_request(call)
    assert request.url == f"https://{host}/v1/{place}/anthropic/models/claude-x:streamRawPredict"
    body = json.loads(request.body)
    assert body["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in body


def test_vertex_without_a_project_is_told_of() -> None:
    with pytest.raises(ConfigurationError, match="GOOGLE_CLOUD_PROJECT"):
        request_of("Hi", "vertex:gemini-3-pro")


def test_roles_are_two_and_system_messages_stand_apart() -> None:
    conversation = Conversation.system("A").developer("B").user("C").user("D").assistant("E").user("F")
    body = body_of(conversation)
    assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert [(turn["role"], [part["text"] for part in turn["parts"]]) for turn in body["contents"]] == [
        ("user", ["C", "D"]),
        ("model", ["E"]),
        ("user", ["F"]),
    ]


def test_media() -> None:
    message = (
        Message.user("See", image=PNG)
        .with_image("https://a.test/x.jpg?y", detail="low")
        .with_file("https://a.test/doc")
    )
    data = base64.b64encode(PNG).decode()
    assert body_of(message)["contents"][0]["parts"][1:] == [
        {"inlineData": {"mimeType": "image/png", "data": data}},
        {
            "fileData": {"fileUri": "https://a.test/x.jpg?y", "mimeType": "image/jpeg"},
            "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"},
        },
        {"fileData": {"fileUri": "https://a.test/doc"}},
    ]


def test_tools_and_their_choice() -> None:
    search = ProviderTool({"googleSearch": {}})
    body = body_of("Hi", tools=[WEATHER, search], params=SamplingParams(tool_choice="weather"))
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Tells it.", "parametersJsonSchema": WEATHER.parameters}
            ]
        },
        {"googleSearch": {}},
    ]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    for choice, mode in modes.items():
        body = body_of("Hi", tools=[WEATHER], params=SamplingParams(tool_choice=choice))
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": mode}}
    strict = Tool(name="weather", strict=True)
    assert body_of("Hi", tools=[strict])["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


def test_settings() -> None:
    found = config_of(
        temperature=0.5,
        top_p=0.9,
        max_new_tokens=7,
        stop="x",
        seed=1,
        presence_penalty=1,
        frequency_penalty=1,
        top_logprobs=3,
    )
    assert found == {
        "temperature": 0.5,
        "topP": 0.9,
        "maxOutputTokens": 7,
        "stopSequences": ["x"],
        "seed": 1,
        "presencePenalty": 1,
        "frequencyPenalty": 1,
        "responseLogprobs": True,
        "logprobs": 3,
    }
    assert config_of(json_mode=True) == {"responseMimeType": "application/json"}
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    assert body_of("Hi", output=schema)["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert body_of("Hi", params=SamplingParams(service_tier="flex"))["serviceTier"] == "flex"


@pytest.mark.parametrize(
    ("model", "effort", "found"),
    [
        ("gemini-3-pro", "minimal", {"thinkingLevel": "minimal", "includeThoughts": True}),
        ("gemini-3-pro", "max", {"thinkingLevel": "high", "includeThoughts": True}),
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
    ],
)
def test_efforts(model: str, effort, found) -> None:
    assert config_of(f"vertex-express:{model}", reasoning_effort=effort) == {"thinkingConfig": found}


def test_gemini_3_cannot_be_kept_from_thinking() -> None:
    with pytest.raises(UnsupportedParameterError, match="cannot be turned off"):
        config_of(reasoning_effort="none")


@pytest.mark.parametrize("params", [{"verbosity": "low"}, {"parallel_tool_calls": False}])
def test_what_has_no_place_is_refused(params) -> None:
    with pytest.raises(UnsupportedParameterError, match="takes no"):
        config_of(**params)


@pytest.mark.parametrize(
    "conversation",
    [
        Conversation.user("a").system("b"),
        Conversation([Message("user", Message.user("a").parts, "Ann")]),
        Conversation([Message("user", (ReasoningPart("a"),))]),
    ],
)
def test_messages_that_have_no_place_are_refused(conversation) -> None:
    with pytest.raises(UnsupportedParameterError):
        body_of(conversation)


def test_a_prompt_needs_more_than_a_system_message() -> None:
    with pytest.raises(InvalidPromptError, match="only system messages"):
        body_of(Conversation.system("a"))


def test_results_go_back_by_name() -> None:
    conversation = Conversation.user("Hi")
    for name in ("f", "g"):  # the same generated id in two turns
        conversation.add(Message.assistant(tool_calls=[ToolCallPart("call_0", name, '{"x":1}', {"x": 1})]))
        conversation.tool_result("call_0", {"y": 2} if name == "f" else "text")
    conversation.add(Message.assistant(tool_calls=[ToolCallPart("own", "h", "", {})]))
    image = ImagePart(Media(media_type="image/png", data=PNG))
    conversation.add(Message("tool", (ToolResultPart("own", "broke", (image,), is_error=True),)))
    parts = [part for turn in body_of(conversation)["contents"][1:] for part in turn["parts"]]
    assert [part.pop("thoughtSignature", None) for part in parts] == [SKIPPED, None] * 3
    assert parts == [
        {"functionCall": {"name": "f", "args": {"x": 1}}},
        {"functionResponse": {"name": "f", "response": {"y": 2}}},
        {"functionCall": {"name": "g", "args": {"x": 1}}},
        {"functionResponse": {"name": "g", "response": {"output": "text"}}},
        {"functionCall": {"id": "own", "name": "h", "args": {}}},
        {
            "functionResponse": {
                "id": "own",
                "name": "h",
                "response": {"error": "broke"},
                "parts": [{"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}}],
            }
        },
    ]
    with pytest.raises(InvalidPromptError, match="not in the conversation"):
        body_of(Conversation.user("a").tool_result("call_9", "b"))


def test_an_answer_goes_back_with_all_that_google_wants_to_see_again() -> None:
    parts = [
        {"text": "Hm.", "thought": True, "thoughtSignature": "s0"},
        {"text": "Let me see.", "thoughtSignature": "s1"},
        {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s2"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"inlineData": {"mimeType": "image/png", "data": "AAEC"}, "thoughtSignature": "s3"},
        {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s4"},
        {"functionCall": {"id": "own", "name": "g", "args": {}}},
        {"text": "", "thoughtSignature": "s5"},
    ]
    grounding = {"searchEntryPoint": {"renderedContent": "<b>"}}
    builder = ResponseBuilder()
    builder.add_all(
        decode_events(API, sse(*(answer(part) for part in parts), answer(reason="STOP", groundingMetadata=grounding)))
    )
    content = builder.response().content
    own = Message("assistant", tuple(_owned(part, "google") for part in content.parts))
    results = Message("tool", tuple(ToolResultPart(call.id, "1") for call in own.tool_calls))
    for model in ("gemini:gemini-3-pro", "vertex-express:gemini-3-pro"):
        assert body_of([Message.user("Hi"), own, results], model)["contents"][1] == {"role": "model", "parts": parts}
        assert build_call(find_model(model), [Message.user("Hi"), own]).warnings == ()


def test_nothing_opaque_goes_to_somebody_else() -> None:
    foreign = Message(
        "assistant",
        (ReasoningPart("Hm."), ProviderDataPart("anthropic", "thought_signature", "s"), *Message.assistant("A").parts),
    )
    assert body_of([Message.user("Hi"), foreign])["contents"][1]["parts"] == [{"text": "A"}]
    warnings = build_call(find_model("gemini:x"), [Message.user("Hi"), foreign]).warnings
    assert set(warnings) == {"reasoning_not_sent", "provider_data_not_sent"}


def _owned(part, owner: str):
    return ProviderDataPart(owner, part.kind, part.data) if isinstance(part, ProviderDataPart) else part


def signatures_of(conversation: Conversation, model: str) -> list[str | None]:
    """Return the signature of each function call that is sent."""
    contents = body_of(conversation, model)["contents"]
    return [part.get("thoughtSignature") for each in contents for part in each["parts"] if "functionCall" in part]


def with_calls(conversation: Conversation, *parts) -> Conversation:
    message = Message("assistant", parts)
    conversation.add(message)
    for call in message.tool_calls:
        conversation.tool_result(call.id, "1")
    return conversation


FOREIGN = (ToolCallPart("toolu_1", "f", "{}", {}), ToolCallPart("toolu_2", "g", "{}", {}))
OWN = (ToolCallPart("own", "f", "{}", {}), ProviderDataPart("google", "thought_signature", "real"))


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("gemini:gemini-3-pro", SKIPPED),
        ("gemini:models/gemini-3.1-flash", SKIPPED),
        ("gemini:gemini-flash-latest", SKIPPED),
        ("vertex-express:gemini-4-argon", SKIPPED),
        ("gemini:gemini-2.5-flash", None),
        ("gemini:models/gemini-2.0-flash", None),
        ("gemini:gemma-3-27b-it", None),
    ],
)
def test_a_call_of_another_model_has_the_documented_signature(model: str, sent: str | None) -> None:
    """Gemini 3 answers an unsigned call with a 400: https://github.com/agentjido/req_llm/issues/427."""
    conversation = with_calls(with_calls(Conversation.user("a"), *FOREIGN), *FOREIGN)
    assert signatures_of(conversation, model) == [sent, None, sent, None]  # of parallel calls the first one
    own = with_calls(with_calls(Conversation.user("a"), *OWN), *FOREIGN)
    assert signatures_of(own, model) == ["real", sent, None]


def test_calls_of_earlier_turns_need_no_signature() -> None:
    conversation = with_calls(Conversation.user("a"), *FOREIGN).user("b")
    assert signatures_of(conversation, "gemini:gemini-3-pro") == [None, None]
    assert signatures_of(with_calls(conversation, *FOREIGN), "gemini:gemini-3-pro") == [None, None, SKIPPED, None]


@pytest.mark.parametrize("media_type", ["text/x-python", "application/json", "text/markdown"])
def test_text_is_sent_as_a_type_that_google_takes(media_type: str) -> None:
    message = Message.user("a").with_file(b"x = 1", media_type=media_type)
    blob = body_of([message])["contents"][0]["parts"][1]["inlineData"]
    assert blob["mimeType"] == (media_type if media_type == "text/markdown" else "text/plain")


def test_older_models_take_media_beside_the_results() -> None:
    calls = Message("assistant", (*FOREIGN,))
    conversation = Conversation.user("a").add(calls)
    conversation.tool_result("toolu_1", "x", images=PNG).tool_result("toolu_2", "y")
    names = [next(iter(part)) for part in body_of(conversation, "gemini:gemini-2.5-flash")["contents"][2]["parts"]]
    assert names == ["functionResponse", "functionResponse", "inlineData"]
