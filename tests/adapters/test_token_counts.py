"""Token counts from the wire: validated once, estimated where they are missing or impossible, for every wire API."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.adapters.token_counts import (
    MOST_TOKENS,
    Count,
    build_usage,
    read_count,
    read_counts,
    read_tool_uses,
)
from lm_deluge.api_requests.answer import settle_answer, usage_of
from lm_deluge.dispatch.budget import Budget, CallBudget
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.models.costs import request_cost
from lm_deluge.models.registry import find_model, find_provider
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import ResponseBuilder
from lm_deluge.simulator import Script
from lm_deluge.testing import decode_body
from lm_deluge.usage import Price, Usage

APIS = adapter_names()
TEXT = "word " * 400
PROMPT_TOKENS = 100
PRICE = Price(input=1.0, output=10.0, cache_read=0.1, cache_write=1.25, reasoning=10.0)
HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.sampled_from([-1, 0, MOST_TOKENS, MOST_TOKENS + 1, int("9" * 401), -int("9" * 401)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e308, -1e308, 0.5, 12.0]),
    st.sampled_from(["", "12", "-3", "1_0", "٣", "1e9", "many", "9" * 401]),
    st.sampled_from([[], [1], {}, {"tokens": 1}]),
)


def a_call(api: str) -> Call:
    row = ProviderRow(id="acme", otel_name="acme", adapter=api, base_url="https://acme.test")
    model = ModelRow(id="acme:m", name="m-1", provider=row.id, price=PRICE)
    return Call(model=model, provider=row, base_url=row.base_url, conversation=Conversation.user("Hi"))


def with_counts(value: Any, draw: Any) -> Any:
    """Return JSON in which every token count is replaced, or missing."""
    if isinstance(value, list):
        return [with_counts(item, draw) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {}
    for name, item in value.items():
        is_count = isinstance(item, int) and any(word in name.lower() for word in ("token", "count"))
        if not is_count or name in ("index", "max_output_tokens"):
            changed[name] = with_counts(item, draw)
        elif draw(st.booleans()):
            changed[name] = draw(HOSTILE)
    return changed


@pytest.mark.parametrize("api", APIS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_usage_object_defeats_max_cost(api: str, data: st.DataObject) -> None:
    encoder = find_encoder(api)
    script = Script(text=TEXT, usage=Usage(input_tokens=PROMPT_TOKENS, output_tokens=500))
    request = encoder_request()
    body = encoder.encode_response(script.play(request, response_id=f"{encoder.id_prefix}1"))
    changed = json.dumps(with_counts(json.loads(body), data.draw)).encode()
    call = a_call(api)
    builder = ResponseBuilder()
    builder.add_all(find_adapter(api).parse_response(call, changed))
    usage = usage_of(builder, PROMPT_TOKENS)
    cost = request_cost(call.model, call.provider, usage)
    assert cost is not None
    assert math.isfinite(cost)
    # At least an eighth of what the texts are estimated to cost, whatever is reported.
    least = (PROMPT_TOKENS / 8 * PRICE.cache_read + len(TEXT) / 4 / 8 * PRICE.output) / 1e6  # type: ignore[operator]
    assert cost >= least
    assert 0 <= usage.input_tokens <= 4 * MOST_TOKENS
    assert 0 <= usage.output_tokens <= 2 * MOST_TOKENS
    budget = Budget(10 * least, "the client")
    calls = 0
    while budget.refusal() is None and calls < 20:
        CallBudget((budget,)).charge(cost)
        calls += 1
    assert calls <= 11
    response = settle_answer(builder, call, usage, cost)
    assert repr(response.usage)
    assert json.dumps(response.to_dict())


def encoder_request() -> Any:
    from lm_deluge.encoders.encoder import ParsedRequest

    return ParsedRequest(model="m-1", conversation=Conversation.user("Hi"))


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        ("7", 7),
        ("0007", 7),
        (MOST_TOKENS, MOST_TOKENS),
        (str(MOST_TOKENS), MOST_TOKENS),
        (MOST_TOKENS + 1, None),
        (str(MOST_TOKENS + 1), None),
        (float(MOST_TOKENS * 2), None),
        (int("1" * 401), None),
        (1e308, None),
        (math.inf, None),
        (math.nan, None),
        (-1, None),
        (-0.5, None),
        (0.5, None),
        (True, None),
        (None, None),
        ("", None),
        ("-1", None),
        ("1_0", None),
        ("٣", None),
        ("1e3", None),
        ("²", None),
        ([1], None),
        ({}, None),
    ],
)
def test_a_count_is_an_integer_that_an_answer_can_have(value: Any, count: int | None) -> None:
    assert read_count(value) == count


def test_a_missing_count_is_derived_from_the_total() -> None:
    raw = {"total_tokens": "30"}
    assert build_usage(raw, 10, None, "30") == Usage(input_tokens=10, output_tokens=20, raw=raw)
    assert build_usage(raw, None, 10, 30.0) == Usage(input_tokens=20, output_tokens=10, raw=raw)
    assert build_usage(raw, 10, None, 3) == Usage(input_tokens=10, estimated=True, raw=raw)
    assert build_usage(raw, 10, None) == Usage(input_tokens=10, estimated=True, raw=raw)
    assert build_usage(raw, None, None, 30) is None


class Inner(msgspec.Struct):
    cached: Count = None


class Counts(msgspec.Struct, rename="camel"):
    all_tokens: Count = None
    other_tokens: Count = None
    inner: Inner | None = None
    rest: Any = None


@given(HOSTILE, HOSTILE, HOSTILE)
def test_counts_of_a_struct_are_those_that_are_read_one_by_one(one: Any, other: Any, inner: Any) -> None:
    found = read_counts({"allTokens": one, "otherTokens": other, "inner": {"cached": inner}, "rest": [one]}, Counts)
    assert found == Counts(read_count(one), read_count(other), Inner(read_count(inner)), [one])
    is_object = isinstance(inner, dict)
    assert read_counts({"allTokens": one, "inner": inner}, Counts) == Counts(
        read_count(one), inner=Inner() if is_object else None
    )


def test_tool_uses_are_counts_by_tool() -> None:
    raw = {"web_search_requests": 2, "web_fetch_requests": 0, "odd_requests": -1, "code": "3"}
    assert read_tool_uses(raw, "_requests") == {"web_search": 2, "code": 3}
    assert read_tool_uses([1], "_requests") == {}
    assert read_tool_uses(None, "_requests") == {}


def usage_in(api: str, usage: Any) -> Usage:
    """Return the usage of a plain answer with this usage object."""
    bodies = {
        "openai-chat": {
            "id": "1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
            "usage": usage,
        },
        "anthropic-messages": {
            "type": "message",
            "id": "1",
            "role": "assistant",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "usage": usage,
        },
        "gemini-generate": {
            "candidates": [{"content": {"parts": [{"text": TEXT}], "role": "model"}, "finishReason": "STOP"}],
            "usageMetadata": usage,
        },
    }
    builder = ResponseBuilder()
    builder.add_all(find_adapter(api).parse_response(a_call(api), json.dumps(bodies[api]).encode()))
    return usage_of(builder, PROMPT_TOKENS)


@pytest.mark.parametrize(
    ("api", "usage"),
    [
        ("openai-chat", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        ("openai-chat", {"total_tokens": 600}),
        ("openai-chat", {"prompt_tokens": None, "completion_tokens": 1.5}),
        ("openai-chat", {"prompt_tokens": int("9" * 401), "completion_tokens": 1e308}),
        ("anthropic-messages", {"input_tokens": "?", "output_tokens": -5}),
        ("anthropic-messages", {"input_tokens": 0, "output_tokens": 1}),
        ("gemini-generate", {"promptTokenCount": -100, "candidatesTokenCount": -500, "totalTokenCount": -600}),
    ],
)
def test_without_a_usable_count_usage_is_estimated(api: str, usage: Any) -> None:
    found = usage_in(api, usage)
    assert (found.input_tokens, found.output_tokens, found.estimated) == (PROMPT_TOKENS, len(TEXT) // 4, True)


def test_counts_that_are_texts_are_read() -> None:
    found = usage_in("openai-chat", {"prompt_tokens": "90", "completion_tokens": "480", "total_tokens": "570"})
    assert (found.input_tokens, found.output_tokens, found.estimated) == (90, 480, False)


def test_fees_of_tools_and_the_region_are_part_of_the_cost() -> None:
    usage = usage_in(
        "anthropic-messages",
        {
            "input_tokens": 1_000,
            "output_tokens": 500,
            "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
            "inference_geo": "us",
        },
    )
    assert usage.tool_uses == {"web_search": 3, "web_fetch": 1}
    assert usage.region == "us"
    model = ModelRow(id="claude", name="claude", provider="anthropic", price=Price(input=3.0, output=15.0))
    cost = request_cost(model, find_provider("anthropic"), usage)
    assert cost == pytest.approx(1.1 * (1_000 * 3.0 + 500 * 15.0) / 1e6 + 3 * 0.01)


def test_a_fee_per_request_is_charged_once() -> None:
    usage = Usage(input_tokens=10, output_tokens=10, tool_uses={"web_search": 4})
    price = Price(input=0.0, output=0.0)
    older = ModelRow(id="g2", name="gemini-2.5-flash", provider="gemini", price=price)
    newer = ModelRow(id="g3", name="gemini-3-flash", provider="gemini", price=price)
    assert request_cost(older, find_provider("gemini"), usage) == pytest.approx(0.035)
    assert request_cost(newer, find_provider("gemini"), usage) == pytest.approx(4 * 0.014)


def test_a_tool_without_a_known_fee_is_named_in_a_warning() -> None:
    call = a_call("anthropic-messages")
    usage = Usage(input_tokens=10, output_tokens=10, tool_uses={"code_execution": 1})
    assert "cost_without_code_execution" in settle_answer(ResponseBuilder(), call, usage, 0.1).warnings
    assert settle_answer(ResponseBuilder(), call, usage, None).warnings == ()


def test_sums_have_the_tools_of_both() -> None:
    one = Usage(input_tokens=1, tool_uses={"web_search": 1}, region="us")
    both = one + Usage(tool_uses={"web_search": 2, "file_search": 1}, region="us")
    assert both.tool_uses == {"web_search": 3, "file_search": 1}
    assert both.region == "us"
    assert (one + Usage()).region is None


def test_the_dearest_known_model_costs_a_finite_amount_at_the_largest_counts() -> None:
    model = find_model("gpt-4o")
    usage = Usage(input_tokens=MOST_TOKENS, output_tokens=MOST_TOKENS)
    cost = request_cost(model, find_provider(model.provider), usage)
    assert cost is not None
    assert math.isfinite(cost)


def test_searches_of_google_are_counted_once_each() -> None:
    grounding = {"webSearchQueries": ["rome weather", "rome forecast"], "groundingChunks": []}
    first = {"candidates": [{"content": {"parts": [{"text": "Sunny."}]}, "groundingMetadata": grounding}]}
    last = {
        "candidates": [{"content": {"parts": [{"text": ""}]}, "groundingMetadata": grounding, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7},
    }
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in (first, last))
    usage = decode_body("gemini-generate", body).usage
    assert usage is not None
    assert usage.tool_uses == {"web_search": 2}


@pytest.mark.parametrize("is_streamed", [True, False])
def test_calls_of_openais_tools_are_counted(*, is_streamed: bool) -> None:
    output = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "a"}},
        {"type": "web_search_call", "id": "ws_2", "status": "completed", "action": {"type": "open_page", "url": "u"}},
        {"type": "web_search_call", "id": "ws_3", "status": "completed"},
        {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "container_id": "c"},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Done.", "annotations": []}],
        },
    ]
    response = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-5",
        "output": output,
        "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
    }
    event = {"type": "response.completed", "response": response}
    body = json.dumps(response).encode()
    if is_streamed:
        body = b"event: response.completed\ndata: " + json.dumps(event).encode() + b"\n\n"
    usage = decode_body("openai-responses", body).usage
    assert usage is not None
    assert usage.tool_uses == {"web_search": 2, "code_interpreter": 1}
