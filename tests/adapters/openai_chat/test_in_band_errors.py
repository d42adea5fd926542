"""Errors in responses with status 200, in all the structures in which hosts send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import cuts
from lm_deluge import errors
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.adapters.errors import classify_in_band, classify_status, is_error_object
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import APIError
from lm_deluge.events import ResponseStarted, TextDelta
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.testing.decode import decode_body
from samples.chat_bytes import chunk, failure_of, frames, read, text

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 43, "completion_tokens": 10}
SSE_APIS = ["anthropic-messages", "cohere-v2", "gemini-generate", "gemini-interactions", "mistral-chat", "openai-chat"]


@pytest.mark.parametrize("api", SSE_APIS)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_an_error_in_a_field_of_its_own(api: str, end: bytes, size: int) -> None:
    begin = b"".join(find_encoder(api).encode_stream([ResponseStarted("1", "m"), TextDelta("Half an")]))
    failure = b'error: {"code":500,"message":"slot unavailable","type":"server_error"}' + end
    with pytest.raises(errors.ServerError) as caught:
        decode_body(api, cuts.every(begin + failure, size))
    assert caught.value.message == "slot unavailable"
    assert caught.value.partial is not None
    assert caught.value.partial.completion == "Half an"


def test_an_error_in_a_field_of_its_own_is_followed_by_the_mark() -> None:
    error = failure_of(
        b'error: {"code":400,"message":"too long","type":"exceed_context_size_error"}\n\n' + DONE,
        errors.BadRequestError,
    )
    assert (error.message, error.partial.completion) == ("too long", "")
    assert failure_of(text("a") + b"error: out of memory\n\n" + DONE, errors.ServerError).message == "out of memory"


def test_a_field_without_a_value_is_no_error() -> None:
    assert read(text("a") + b"error\n\nerror:\n\n" + chunk({}, "stop") + DONE).completion == "a"


BASE_RESP = [
    (1000, errors.ServerError),
    (1001, errors.ServerError),
    (1002, errors.RateLimitError),
    (1004, errors.AuthenticationError),
    (1008, errors.QuotaExceededError),
    (1013, errors.ServerError),  # not in MiniMax's list
    (2061, errors.ServerError),
    (1026, errors.ContentFilterError),
    (1027, errors.ContentFilterError),
    (1039, errors.RateLimitError),
    (2013, errors.BadRequestError),
    (2049, errors.AuthenticationError),
    (2056, errors.QuotaExceededError),
    (4711, errors.ServerError),
    ("1002", errors.RateLimitError),
]


@pytest.mark.parametrize(("number", "kind"), BASE_RESP)
@pytest.mark.parametrize("api", ["openai-chat", "anthropic-messages"])
@pytest.mark.parametrize("is_plain", [True, False])
def test_a_number_of_minimax(number: Any, kind: type[APIError], api: str, *, is_plain: bool) -> None:
    document = {"id": "1", "choices": None, "base_resp": {"status_code": number, "status_msg": "why"}}
    if api == "anthropic-messages":
        del document["choices"]
        if not is_plain:
            pytest.skip("its streams report errors as events of the type `error`")
    body = json.dumps(document).encode() if is_plain else frames(document) + DONE
    with pytest.raises(APIError) as caught:
        decode_body(api, body)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.code) == ("why", str(number))


def test_a_number_of_minimax_after_text() -> None:
    failed = {"id": "1", "choices": [], "usage": USAGE, "base_resp": {"status_code": 1013, "status_msg": "why"}}
    error = failure_of(text("Hi") + frames(failed) + DONE, errors.ServerError)
    assert error.partial.completion == "Hi"
    assert error.partial.usage is not None
    assert error.partial.usage.output_tokens == 10


@pytest.mark.parametrize("number", [0, "0", None])
def test_a_number_of_success(number: Any) -> None:
    fine = {"base_resp": {"status_code": number, "status_msg": ""}}
    pieces = [{"id": "1", "choices": [{"index": 0, "delta": {"content": word}}], **fine} for word in ("a", "b", "c")]
    assert read(frames(*pieces) + chunk({}, "stop") + DONE).completion == "abc"
    document = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}], **fine}
    assert read(json.dumps(document).encode()).completion == "a"


FAILED = {"code": 400, "message": "Token limit reached"}
AFTER_THE_END = {
    "beside empty choices": {"choices": [], "error": FAILED, "usage": USAGE},
    "alone": {"error": FAILED},
    "beside text": {"choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": None}], "error": FAILED},
    "beside another finish reason": {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}], "error": FAILED},
    "in the choice": {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": FAILED}]},
}


@pytest.mark.parametrize("name", AFTER_THE_END)
@pytest.mark.parametrize("end", [b"", chunk({}, "length")], ids=["in the middle", "after the finish reason"])
@pytest.mark.parametrize("size", [1, 10_000])
def test_an_error_is_raised_wherever_it_stands(name: str, end: bytes, size: int) -> None:
    failed = {"id": "1", **AFTER_THE_END[name]}
    error = failure_of(cuts.every(text("Hi") + end + frames(failed) + DONE, size), errors.BadRequestError)
    assert error.message == "Token limit reached"
    assert error.partial.completion == ("Hi!" if name == "beside text" else "Hi")
    assert error.partial.finish_reason is None
    assert (error.partial.usage is not None) == ("usage" in failed)


@pytest.mark.parametrize("is_in_choice", [True, False])
def test_an_error_beside_a_plain_answer(*, is_in_choice: bool) -> None:
    choice: dict[str, Any] = {"index": 0, "message": {"content": "Half"}, "finish_reason": "length"}
    document: dict[str, Any] = {"id": "1", "choices": [choice], "usage": USAGE}
    (choice if is_in_choice else document)["error"] = FAILED
    error = failure_of(json.dumps(document).encode(), errors.BadRequestError)
    assert (error.message, error.partial.completion) == ("Token limit reached", "Half")
    assert error.partial.usage is not None
    assert error.partial.usage.input_tokens == 43


OTHERS: list[tuple[Any, type[APIError], str]] = [
    ([{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}], errors.OverloadedError, "busy"),  # Google
    ({"type": "error", "message": "bad", "code": "invalid_request_error"}, errors.BadRequestError, "bad"),
    (
        {"success": False, "errors": [{"code": 7003, "message": "no route"}], "result": None},
        errors.ServerError,
        "no route",
    ),
    ({"code": 429, "msg": "slow down", "success": False}, errors.RateLimitError, "slow down"),  # Z.AI
    ({"code": 50505, "message": "overloaded", "data": None}, errors.ServerError, "overloaded"),  # SiliconFlow
    ({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow"}, errors.RateLimitError, "slow"),  # Databricks
    ({"error_code": 336003, "error_msg": "odd", "id": "as-1"}, errors.ServerError, "odd"),  # Baidu
    ({"code": "Arrearage", "message": "overdue", "request_id": "x"}, errors.QuotaExceededError, "overdue"),  # Alibaba
    ({"status": 401, "message": "no key"}, errors.AuthenticationError, "no key"),
]


@pytest.mark.parametrize(("value", "kind", "message"), OTHERS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("api", ["openai-chat", "mistral-chat"])
def test_errors_that_are_neither_in_error_nor_in_detail(
    value: Any, kind: type[APIError], message: str, api: str
) -> None:
    body = json.dumps(value).encode()
    for case in (body, frames(value) + DONE, text("a") + frames(value) + DONE):
        with pytest.raises(APIError) as caught:
            decode_body(api, case)
        assert type(caught.value) is kind
        assert (caught.value.message, caught.value.billed) == (message, "maybe")
    with pytest.raises(APIError, match=message):  # a line of a batch has no stream
        find_adapter(api).parse_response(_call(api), body)


def _call(api: str) -> Call:
    row = ProviderRow(id="acme", otel_name="acme", adapter=api, base_url="")
    return Call(model=ModelRow(id="m", name="m", provider="acme"), provider=row, conversation=Conversation())


@pytest.mark.parametrize("api", [*SSE_APIS, "bedrock-converse"])
def test_an_error_document_is_an_error_in_every_api(api: str) -> None:
    with pytest.raises(errors.RateLimitError, match="slow down"):
        decode_body(api, b'{"code": 429, "msg": "slow down", "success": false}')


@pytest.mark.parametrize(
    "value",
    [
        {"id": "1", "type": "ping", "status": "ok", "message": "fine"},
        {"code": 0, "message": "success"},
        {"code": 200, "msg": "ok"},
        {"message": "hello"},
        {"success": True},
        {"error": None, "errors": []},
        [],
        ["x"],
        5,
        "text",
    ],
)
def test_frames_that_are_no_errors(value: Any) -> None:
    assert not is_error_object(value)
    assert read(text("a") + frames(value) + chunk({}, "stop") + DONE).completion == "a"


QUOTAS: list[tuple[int, dict[str, Any]]] = [
    (429, {"type": "insufficient_balance_error", "message": "x"}),  # ModelScope
    (429, {"type": "exceeded_current_quota_error", "message": "x"}),  # Moonshot
    (403, {"code": "insufficient_user_quota", "message": "x"}),  # New API
    (400, {"code": "Arrearage", "message": "x"}),  # Alibaba
    (403, {"code": "AccountOverdueError", "message": "x"}),  # Volcengine
    (429, {"code": "1113", "message": "Insufficient balance or no resource package."}),  # Z.AI
    (429, {"code": "Insufficient Balance", "message": "x"}),
    (402, {}),
]


@pytest.mark.parametrize(("status", "fields"), QUOTAS, ids=str)
def test_an_account_without_credit_is_a_quota_not_a_rate(status: int, fields: dict[str, Any]) -> None:
    error = classify_status(status, {}, json.dumps({"error": fields}).encode())
    assert type(error) is errors.QuotaExceededError
    assert not error.retryable


def test_an_account_without_credit_in_a_stream() -> None:
    assert type(classify_in_band({"error": {"type": "insufficient_balance_error"}})) is errors.QuotaExceededError


@pytest.mark.parametrize(
    "fields",
    [
        {
            "status": "RESOURCE_EXHAUSTED",
            "message": "You exceeded your current quota, please check your plan",
        },  # Google
        {"code": "rate_limit_exceeded", "message": "Limit 10000 tokens per minute"},
        {"type": "requests", "message": "no balance between requests"},
    ],
)
def test_a_rate_is_no_quota(fields: dict[str, Any]) -> None:
    assert type(classify_status(429, {}, json.dumps({"error": fields}).encode())) is errors.RateLimitError


@pytest.mark.parametrize("value", [123, True, {"a": 1}, 1.5])
@pytest.mark.parametrize("is_plain", [True, False])
def test_text_of_another_json_type_is_a_warning(value: Any, *, is_plain: bool) -> None:
    if is_plain:
        choice = {"index": 0, "message": {"content": value}, "finish_reason": "stop"}
        body = json.dumps({"id": "1", "choices": [choice]}).encode()
    else:
        body = text("a") + chunk({"content": value}) + chunk({"content": value}) + text("b") + chunk({}, "stop") + DONE
    response = read(body)
    assert response.completion == ("" if is_plain else "ab")
    assert response.warnings == ("wrong_type",)


@pytest.mark.parametrize("piece", [{"type": "text", "text": 5}, 7, {"type": "thinking", "thinking": 5}])
def test_a_piece_of_another_json_type_is_a_warning(piece: Any) -> None:
    body = chunk({"content": [{"type": "text", "text": "a"}, piece]}) + chunk({}, "stop") + DONE
    response = read(body)
    assert (response.completion, response.warnings) == ("a", ("wrong_type",))


CODES_AROUND: list[dict[str, Any]] = [
    {"type": "error", "error": None, "code": "rate_limit_exceeded"},
    {"type": "error", "error": {"message": "slow"}, "code": "rate_limit_exceeded"},
    {"error": {"message": "slow"}, "code": 429},
    {"error": {"message": "slow", "code": None}, "status_code": 429},
    {"error": {"message": "slow", "type": None}, "type": "rate_limit_error"},
    {"error": {"error": {"message": "slow", "code": "rate_limit_exceeded"}}},
    {"error": {"code": 429, "error": {"message": "slow", "code": None}}},
    {"error": [{"message": "slow", "code": 429}]},
    {"error": {"message": "slow", "code": None, "error_code": "rate_limit_exceeded"}},
    {"errors": [{"message": "slow"}], "code": 429},
    {"error": {"details": "d"}, "message": "slow", "code": 429},
]


@pytest.mark.parametrize("payload", CODES_AROUND)
@pytest.mark.parametrize("api", [*SSE_APIS, "openai-responses"])
def test_a_code_around_the_error_or_inside_another_one_counts(api: str, payload: dict[str, Any]) -> None:
    begin = b"".join(find_encoder(api).encode_stream([ResponseStarted("1", "m"), TextDelta("Half an")]))
    for frame in (b"data: %b\n\n", b"event: error\ndata: %b\n\n"):
        if "error" not in payload and frame.startswith(b"data"):
            continue  # without a word of it, it is no error in the middle of a stream
        with pytest.raises(errors.RateLimitError) as caught:
            decode_body(api, begin + frame % json.dumps(payload).encode())
        assert caught.value.message in ("slow", "the provider answered with status 429")


def test_a_code_of_a_success_around_the_error_says_nothing() -> None:
    for around in ({"code": 0}, {"code": "200"}, {"status": "success"}, {"type": "error"}):
        error = classify_in_band({"error": {"message": "no"}, **around})
        assert (type(error), error.code, error.type) == (errors.ServerError, None, None)
    assert classify_in_band({"error": {"message": "no", "code": "overloaded"}, "code": 429}).code == "overloaded"


@pytest.mark.parametrize("api", SSE_APIS)
def test_an_error_by_its_type_only(api: str) -> None:
    begin = b"".join(find_encoder(api).encode_stream([ResponseStarted("1", "m"), TextDelta("Half an")]))
    name = "event_type" if api == "gemini-interactions" else "type"
    if api in ("gemini-generate", "mistral-chat", "openai-chat"):
        name = "type"
    payload = {name: "error", "code": "overloaded", "message": "busy"}
    with pytest.raises(errors.OverloadedError, match="busy"):
        decode_body(api, begin + b"data: %b\n\n" % json.dumps(payload).encode())
