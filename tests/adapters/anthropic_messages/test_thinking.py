"""Thinking of Claude: visible, and refused together with what excludes it; also through Bedrock's two APIs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import BadRequestError, UnsupportedParameterError
from lm_deluge.models.rows import Capabilities
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.tool import Tool
from samples.api_calls import call_of

HI = Conversation.user("Hi")
TOOL = Tool(name="f")
SUMMARIZED = {"type": "adaptive", "display": "summarized"}
APIS = ("anthropic-messages", "bedrock-converse", "bedrock-invoke")


def body_of(api: str, name: str, *, able: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    capabilities = Capabilities(**(able or {}))
    call = call_of(api, HI, capabilities=capabilities, params=SamplingParams(**params), tools=(TOOL,))
    name = name if api == "anthropic-messages" else f"us.anthropic.{name}"
    call = msgspec.structs.replace(call, model=msgspec.structs.replace(call.model, name=name))
    body: dict[str, Any] = json.loads(find_adapter(api).build_request(call).body)
    return body


def thinking_of(api: str, body: dict[str, Any]) -> Any:
    return (
        body.get("additionalModelRequestFields", {}).get("thinking")
        if api == "bedrock-converse"
        else body.get("thinking")
    )


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("name", "without_effort"),
    [
        ("claude-3-haiku-20240307", None),
        ("claude-haiku-4-5-20251001", None),
        ("claude-opus-4-20250514", None),
        ("claude-opus-4-7", None),  # does not think unless it is asked to
        ("claude-opus-5", SUMMARIZED),
        ("claude-sonnet-5-5", SUMMARIZED),
        ("claude-fable-5", SUMMARIZED),
        ("claude-sonnet-5@default", SUMMARIZED),
    ],
)
def test_thinking_text_is_asked_for(api: str, name: str, without_effort: Any) -> None:
    assert thinking_of(api, body_of(api, name)) == without_effort
    assert thinking_of(api, body_of(api, name, reasoning_effort="high")) == SUMMARIZED
    assert thinking_of(api, body_of(api, name, reasoning_effort="none")) == {"type": "disabled"}
    # A forced call excludes thinking, and a model without thinking rejects the field.
    assert thinking_of(api, body_of(api, name, tool_choice="required")) is None
    assert thinking_of(api, body_of(api, name, able={"reasoning": False})) is None


OLDER = {"reasoning": True, "reasoning_budget": True}
EXCLUDED = [
    (OLDER, {"temperature": 0.2}, "temperature"),
    ({"reasoning": True}, {"temperature": 0.2}, "temperature"),
    (OLDER, {"top_p": 0.5}, "top_p"),
    (OLDER, {"tool_choice": "required"}, "tool_choice"),
    (OLDER, {"tool_choice": "f"}, "tool_choice"),
]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("able", "params", "parameter"), EXCLUDED, ids=str)
def test_what_excludes_thinking_is_refused_by_name(
    api: str, able: dict[str, Any], params: dict[str, Any], parameter: str
) -> None:
    name = "claude-haiku-4-5"
    with pytest.raises(UnsupportedParameterError, match=parameter) as caught:
        body_of(api, name, able=able, reasoning_effort="low", max_new_tokens=9_000, **params)
    assert caught.value.parameter == parameter
    for effort in (None, "none"):
        body_of(api, name, able=able, reasoning_effort=effort, max_new_tokens=9_000, **params)


@pytest.mark.parametrize("params", [{"temperature": 1}, {"top_p": 0.95}, {"tool_choice": "auto"}])
def test_what_thinking_takes(params: dict[str, Any]) -> None:
    body = body_of("anthropic-messages", "claude-haiku-4-5", able=OLDER, reasoning_effort="low", **params)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2_048}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}, "temperature": 0.2}, "may only be set to 1"),
        ({"thinking": SUMMARIZED, "temperature": 0}, "may only be set to 1"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "tool_choice": {"type": "any"}},
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
    ],
)
def test_the_simulator_refuses_it_too(fields: dict[str, Any], words: str) -> None:
    body = {"model": "claude", "max_tokens": 2_000, "messages": [{"role": "user", "content": "Hi"}], **fields}
    with pytest.raises(BadRequestError) as caught:
        find_encoder("anthropic-messages").parse_request(json.dumps(body).encode())
    assert words in caught.value.message


@pytest.mark.parametrize("api", APIS)
def test_the_simulator_knows_the_display(api: str) -> None:
    name = "claude-opus-5" if api == "anthropic-messages" else "us.anthropic.claude-opus-5"
    body = body_of(api, "claude-opus-5", reasoning_effort="high")
    parsed = find_encoder(api).parse_request(json.dumps(body).encode(), model=name)
    assert (parsed.params.reasoning_effort, parsed.extra) == ("high", {})
