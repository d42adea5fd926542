"""The providers' batch APIs: requests and responses as in their documentation."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.batch import AnthropicBatch
from lm_deluge.adapters.batch_api import BatchAPI, Exchanges, HttpAnswer, ListedBatch, custom_id, index_in
from lm_deluge.adapters.batch_catalog import batch_api_names, find_batch_api
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.adapters.gemini_generate.batch import GeminiBatch
from lm_deluge.adapters.openai_chat.batch import OpenAIBatch
from lm_deluge.dispatch.batch.provider.items import ItemFile
from lm_deluge.errors import (
    APIError,
    BadRequestError,
    BatchEndedError,
    ConfigurationError,
    ContentTypeError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from lm_deluge.models.registry import find_provider, list_providers
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.wire.http import HttpRequest
from samples.api_calls import call_of

OPENAI, ANTHROPIC, GEMINI = OpenAIBatch(), AnthropicBatch(), GeminiBatch()
OPENAI_BATCH = {
    "id": "batch_abc123",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file-abc123",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file-cvaTdG",
    "error_file_id": "file-HOWS94",
    "created_at": 1711471533,
    "in_progress_at": 1711471538,
    "expires_at": 1711557933,
    "finalizing_at": 1711493133,
    "completed_at": 1711493163,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 100, "completed": 95, "failed": 5},
    "metadata": {"customer_id": "user_123456789", "batch_description": "Nightly eval job"},
}
ANTHROPIC_BATCH = {
    "id": "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message_batch",
    "processing_status": "in_progress",
    "request_counts": {"processing": 100, "succeeded": 50, "errored": 30, "canceled": 10, "expired": 10},
    "ended_at": None,
    "created_at": "2024-09-24T18:37:24.100435Z",
    "expires_at": "2024-09-25T18:37:24.100435Z",
    "cancel_initiated_at": None,
    "results_url": None,
}
GEMINI_BATCH = {
    "name": "batches/123456789",
    "metadata": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-2.5-flash",
        "displayName": "file-upload-job-1",
        "state": "BATCH_STATE_SUCCEEDED",
        "batchStats": {"requestCount": "2", "successfulRequestCount": "2"},
        "name": "batches/123456789",
    },
    "done": True,
    "response": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatchOutput",
        "responsesFile": "files/batch-123456789",
    },
}


def chat_call(adapter: str = "openai-chat", **fields: Any) -> Call:
    return call_of(adapter, Conversation.user("Hi"), is_streamed=False, **fields)


def item_of(api: BatchAPI, call: Call, name: str = "k1-0") -> dict[str, Any]:
    request = find_adapter(call.provider.adapter).build_request(call)
    item: dict[str, Any] = json.loads(api.encode_item(call, name, request))
    return item


def play_out(exchanges: Exchanges[Any], answers: list[HttpAnswer]) -> tuple[Any, list[HttpRequest]]:
    """Send the answers to the exchanges; return their result and the requests."""
    sent = [next(exchanges)]
    for answer in answers:
        try:
            sent.append(exchanges.send(answer))
        except StopIteration as end:
            return end.value, sent
    raise AssertionError("there are more requests than answers")


def play(api: BatchAPI, call: Call, answers: list[HttpAnswer]) -> tuple[str, list[HttpRequest], list[bytes]]:
    """Submit two items; return the handle, the requests, and the bodies that are sent in pieces."""
    request = find_adapter(call.provider.adapter).build_request(call)
    with closing(ItemFile(api.separator)) as items:
        for index in range(2):
            items.add(api.encode_item(call, custom_id("k1", index), request))
        handle, sent = play_out(api.submit(call, items, "k1"), answers)
        bodies = [b"".join(each.pieces) for each in sent if each.pieces is not None]
        assert [len(body) for body in bodies] == [each.size for each in sent if each.pieces is not None]
        return handle, sent, bodies


def answered(content: Any, **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(named, json.dumps(content).encode())


def seek(api: BatchAPI, pages: list[Any], call: Call, since: float = 0) -> tuple[list[ListedBatch], list[str]]:
    """Search for the batch k1 of two requests; return the candidates and the URLs of the requests."""
    found, sent = play_out(api.search(call, "k1", count=2, since=since), [answered(page) for page in pages])
    return found, [request.url for request in sent]


# Submissions


def test_openai_takes_a_file_of_the_same_requests_as_direct_calls() -> None:
    call = chat_call()
    body = json.loads(find_adapter("openai-chat").build_request(call).body)
    assert item_of(OPENAI, call) == {
        "custom_id": "k1-0",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }
    assert item_of(OPENAI, chat_call("openai-responses"))["url"] == "/v1/responses"
    answers = [answered({"id": "file-abc123"}), answered(OPENAI_BATCH)]
    handle, (upload, create), (sent,) = play(OPENAI, call, answers)
    assert handle == "batch_abc123"
    assert (upload.method, upload.url) == ("POST", "https://acme.test/files")
    assert upload.headers["content-type"] == "multipart/form-data; boundary=lm-deluge-k1"
    line = json.dumps({"custom_id": "k1-%d", "method": "POST", "url": "/v1/chat/completions", "body": body})
    line = line.replace(": ", ":").replace(", ", ",")
    assert sent.decode() == (
        "--lm-deluge-k1\r\n"
        'content-disposition: form-data; name="purpose"\r\n'
        "\r\n"
        "batch\r\n"
        "--lm-deluge-k1\r\n"
        'content-disposition: form-data; name="file"; filename="k1.jsonl"\r\n'
        "content-type: application/jsonl\r\n"
        "\r\n"
        f"{line % 0}\n{line % 1}"
        "\r\n--lm-deluge-k1--\r\n"
    )
    assert create.url == "https://acme.test/batches"
    assert json.loads(create.body) == {
        "input_file_id": "file-abc123",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"lm_deluge_batch": "k1"},
    }


def test_anthropic_takes_one_document() -> None:
    call = chat_call("anthropic-messages", extra_headers={"anthropic-beta": "a-beta"})
    body = json.loads(find_adapter("anthropic-messages").build_request(call).body)
    handle, (create,), (sent,) = play(ANTHROPIC, call, [answered(ANTHROPIC_BATCH)])
    assert handle == "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF"
    assert (create.method, create.url) == ("POST", "https://acme.test/v1/messages/batches")
    assert create.headers["content-type"] == "application/json"
    assert create.headers["anthropic-beta"] == "a-beta"
    assert json.loads(sent) == {
        "requests": [{"custom_id": "k1-0", "params": body}, {"custom_id": "k1-1", "params": body}]
    }


def test_gemini_takes_an_uploaded_file() -> None:
    call = chat_call("gemini-generate")
    body = json.loads(find_adapter("gemini-generate").build_request(call).body)
    place = "https://acme.test/upload/v1beta/files?upload_id=u1"
    answers = [
        answered({}, x_goog_upload_url=place),
        answered({"file": {"name": "files/123456", "uri": "..."}}),
        answered({**GEMINI_BATCH, "done": False}),
    ]
    handle, (start, upload, create), (sent,) = play(GEMINI, call, answers)
    assert handle == "batches/123456789"
    assert (start.method, start.url) == ("POST", "https://acme.test/upload/v1beta/files")
    assert upload.url == place
    assert start.headers["x-goog-upload-command"] == "start"
    assert start.headers["x-goog-upload-header-content-length"] == str(len(sent))
    assert upload.headers["x-goog-upload-command"] == "upload, finalize"
    assert [json.loads(line) for line in sent.splitlines()] == [
        {"key": "k1-0", "request": body},
        {"key": "k1-1", "request": body},
    ]
    assert create.url == "https://acme.test/v1beta/models/m-1:batchGenerateContent"
    assert json.loads(create.body) == {"batch": {"displayName": "k1", "inputConfig": {"fileName": "files/123456"}}}


def test_an_upload_without_a_url_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="no upload URL"):
        play(GEMINI, chat_call("gemini-generate"), [answered({})])


def test_a_wire_api_that_the_batch_api_does_not_take_is_refused() -> None:
    call = chat_call("cohere-v2")
    with pytest.raises(ConfigurationError, match="does not take the wire API cohere-v2"):
        OPENAI.encode_item(call, "k1-0", find_adapter("cohere-v2").build_request(call))


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=40), st.integers(0, 10**9 - 1))
def test_names_match_the_strictest_rule_and_yield_the_index(batch: str, index: int) -> None:
    name = custom_id(batch, index)
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", name)
    assert index_in(batch, name) == index
    assert index_in(f"{batch}0", name) is None


@given(st.text())
def test_any_other_name_yields_no_index(name: str) -> None:
    assert index_in("K", name) is None


# States


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("validating", "validating"),
        ("in_progress", "in_progress"),
        ("finalizing", "in_progress"),
        ("cancelling", "in_progress"),
        ("completed", "ended"),
        ("expired", "expired"),
        ("cancelled", "cancelled"),
        ("failed", "failed"),
        ("a state of tomorrow", "in_progress"),
    ],
)
def test_states_of_openai(status: str, phase: str) -> None:
    state = OPENAI.read_state(json.dumps({**OPENAI_BATCH, "status": status}).encode())
    assert (state.handle, state.phase) == ("batch_abc123", phase)
    assert state.is_over == (phase not in ("validating", "in_progress"))
    assert (state.finished, state.total) == (100, 100)
    assert state.results == ("file-cvaTdG", "file-HOWS94")
    urls = [request.url for request in OPENAI.build_results(chat_call(), state)]
    assert urls == ["https://acme.test/files/file-cvaTdG/content", "https://acme.test/files/file-HOWS94/content"]


def test_a_file_that_was_not_created_is_not_requested() -> None:
    state = OPENAI.read_state(json.dumps({**OPENAI_BATCH, "output_file_id": None}).encode())
    assert state.results == ("file-HOWS94",)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [("invalid_json_line", BadRequestError, False), ("token_limit_exceeded", RateLimitError, True)],
)
def test_reasons_of_openai_to_refuse_a_batch(code: str, kind: type[APIError], retryable: bool) -> None:
    reason = {"code": code, "message": "This line is not parseable as valid JSON.", "param": None, "line": 4}
    refused = {
        **OPENAI_BATCH,
        "status": "failed",
        "errors": {"object": "list", "data": [reason, {**reason, "line": 9}]},
    }
    error = OPENAI.read_state(json.dumps(refused).encode()).error
    assert type(error) is kind
    assert error.retryable is retryable
    assert "the provider refused the batch, at line 4 of the file: This line is not" in str(error)


@pytest.mark.parametrize("errors", [None, [], {}, {"data": None}, {"data": ["no object"]}, "words"])
def test_a_refusal_without_a_reason_is_an_error(errors: Any) -> None:
    error = OPENAI.read_state(json.dumps({**OPENAI_BATCH, "status": "failed", "errors": errors}).encode()).error
    assert isinstance(error, BadRequestError)
    assert "the provider gave no reason" in str(error)


@pytest.mark.parametrize(
    ("status", "phase"), [("in_progress", "in_progress"), ("canceling", "in_progress"), ("ended", "ended")]
)
def test_states_of_anthropic(status: str, phase: str) -> None:
    document = {**ANTHROPIC_BATCH, "processing_status": status, "results_url": "https://elsewhere.test/results"}
    state = ANTHROPIC.read_state(json.dumps(document).encode())
    assert (state.handle, state.phase) == ("msgbatch_013Zva2CMHLNnXjNJJKqJ2EF", phase)
    assert (state.finished, state.total) == (100, 200)
    # The API key is sent to the base URL only, even if the document contains another URL.
    (request,) = ANTHROPIC.build_results(chat_call("anthropic-messages"), state)
    assert request.url == "https://acme.test/v1/messages/batches/msgbatch_013Zva2CMHLNnXjNJJKqJ2EF/results"


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("PENDING", "validating"),
        ("RUNNING", "in_progress"),
        ("SUCCEEDED", "ended"),
        ("FAILED", "failed"),
        ("CANCELLED", "cancelled"),
        ("EXPIRED", "expired"),
    ],
)
@pytest.mark.parametrize("prefix", ["BATCH_STATE_", "JOB_STATE_"])
def test_states_of_gemini(prefix: str, word: str, phase: str) -> None:
    document = {**GEMINI_BATCH, "metadata": {**GEMINI_BATCH["metadata"], "state": prefix + word}}
    if phase in ("validating", "in_progress"):
        document["done"] = False
    state = GEMINI.read_state(json.dumps(document).encode())
    assert (state.handle, state.phase) == ("batches/123456789", phase)
    assert (state.finished, state.total) == (2, 2)
    (request,) = GEMINI.build_results(chat_call("gemini-generate"), state)
    assert request.url == "https://acme.test/download/v1beta/files/batch-123456789:download?alt=media"


@pytest.mark.parametrize(
    ("fields", "phase", "kind"),
    [
        ({"error": {"code": 3, "message": "Bad."}}, "failed", BadRequestError),
        ({"error": {"code": 1, "message": "Cancelled."}}, "cancelled", None),
        ({"response": {"responsesFile": "files/f"}}, "ended", None),
    ],
)
def test_an_operation_of_gemini_that_is_done_without_a_state(fields: dict[str, Any], phase: str, kind: Any) -> None:
    state = GEMINI.read_state(json.dumps({"name": "batches/1", "done": True, **fields}).encode())
    assert state.phase == phase
    assert state.error is None if kind is None else type(state.error) is kind


@pytest.mark.parametrize("api", [OPENAI, ANTHROPIC, GEMINI], ids=lambda api: api.name)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"id": 1}', b"null"])
def test_a_body_that_is_not_a_state_is_a_retryable_error(api: BatchAPI, body: bytes) -> None:
    with pytest.raises(ContentTypeError, match="the batch API's answer is not in its documented format") as caught:
        api.read_state(body)
    assert caught.value.retryable


# Results

MESSAGE = {
    "id": "msg_014VwiXbi91y3JMjcpyGBHX5",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-6",
    "content": [{"type": "text", "text": "Hello again! It's nice to see you."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 11, "output_tokens": 36},
}
CHAT = {"id": "chatcmpl-123", "object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": {}}


def test_results_of_openai() -> None:
    response = {"status_code": 200, "request_id": "req_123", "body": CHAT}
    line = {"id": "batch_req_123", "custom_id": "request-2", "response": response, "error": None}
    result = OPENAI.read_result(json.dumps(line).encode())
    assert (result.custom_id, result.status, result.request_id, result.error) == ("request-2", 200, "req_123", None)
    assert json.loads(result.body) == CHAT
    refusal = {"error": {"message": "Bad.", "type": "invalid_request_error", "param": None, "code": None}}
    line["response"] = {"status_code": 400, "request_id": "", "body": refusal}
    result = OPENAI.read_result(json.dumps(line).encode())
    assert (result.status, json.loads(result.body), result.request_id) == (400, refusal, None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("batch_expired", BatchEndedError), ("batch_cancelled", BatchEndedError), ("rate_limit_exceeded", RateLimitError)],
)
def test_errors_of_openai(code: str, kind: type[APIError]) -> None:
    error = {"code": code, "message": "This request could not be executed before the completion window expired."}
    line = {"id": "batch_req_123", "custom_id": "request-3", "response": None, "error": error}
    result = OPENAI.read_result(json.dumps(line).encode())
    assert result.custom_id == "request-3"
    assert type(result.error) is kind


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ({"type": "succeeded", "message": MESSAGE}, None),
        ({"type": "expired"}, BatchEndedError),
        ({"type": "canceled"}, BatchEndedError),
        (
            {
                "type": "errored",
                "error": {
                    "type": "error",
                    "error": {"type": "invalid_request_error", "message": "max_tokens: Field required"},
                    "request_id": "req_7",
                },
            },
            BadRequestError,
        ),
        ({"type": "errored", "error": {"type": "error", "error": {"type": "overloaded_error"}}}, OverloadedError),
        ({"type": "errored", "error": {"type": "error", "error": {"type": "api_error"}}}, ServerError),
    ],
)
def test_results_of_anthropic(outcome: dict[str, Any], kind: type[APIError] | None) -> None:
    result = ANTHROPIC.read_result(json.dumps({"custom_id": "my-second-request", "result": outcome}).encode())
    assert result.custom_id == "my-second-request"
    assert (None if result.error is None else type(result.error)) is kind
    if kind is None:
        assert json.loads(result.body) == MESSAGE
    if kind is BadRequestError:
        assert result.request_id == "req_7"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"response": {"candidates": []}}, None),
        ({"error": {"code": 3, "message": "Bad."}}, BadRequestError),
        ({"error": {"code": 8, "message": "Slow down."}}, RateLimitError),
        ({"error": {"code": 14, "message": "Later."}}, OverloadedError),
        ({"error": {"code": 1, "message": "Gone."}}, BatchEndedError),
        ({"error": {"code": 429, "message": "As HTTP says it."}}, RateLimitError),
        ({"response": None, "error": {"code": 13, "message": "Oh."}}, ServerError),
        ({}, ServerError),
    ],
)
def test_results_of_gemini(fields: dict[str, Any], kind: type[APIError] | None) -> None:
    result = GEMINI.read_result(json.dumps({"key": "request-1", **fields}).encode())
    assert result.custom_id == "request-1"
    assert (None if result.error is None else type(result.error)) is kind
    if kind is None:
        assert json.loads(result.body) == {"candidates": []}


@pytest.mark.parametrize("api", [OPENAI, ANTHROPIC, GEMINI], ids=lambda api: api.name)
@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_line_is_a_result_or_a_deluge_error(api: BatchAPI, line: bytes | str) -> None:
    try:
        api.read_result(line if isinstance(line, bytes) else line.encode())
    except ProtocolError as error:
        assert error.reason == "json"  # noqa: PT017 - either way is right


# Polls, cancellation and search


@pytest.mark.parametrize(
    ("api", "adapter", "handle", "poll", "cancel"),
    [
        (OPENAI, "openai-chat", "batch_1", "/batches/batch_1", "/batches/batch_1/cancel"),
        (ANTHROPIC, "anthropic-messages", "m_1", "/v1/messages/batches/m_1", "/v1/messages/batches/m_1/cancel"),
        (GEMINI, "gemini-generate", "batches/1", "/v1beta/batches/1", "/v1beta/batches/1:cancel"),
    ],
)
def test_urls_of_polls_and_cancellation(api: BatchAPI, adapter: str, handle: str, poll: str, cancel: str) -> None:
    asked = api.build_poll(chat_call(adapter), handle)
    assert (asked.method, asked.url, asked.body) == ("GET", f"https://acme.test{poll}", b"")
    ended = api.build_cancel(chat_call(adapter), handle)
    assert (ended.method, ended.url, ended.body) == ("POST", f"https://acme.test{cancel}", b"")


def test_openai_finds_a_batch_by_its_metadata() -> None:
    other, ours = {**OPENAI_BATCH, "id": "batch_0"}, {**OPENAI_BATCH, "metadata": {"lm_deluge_batch": "k1"}}
    pages = [{"object": "list", "data": [other], "has_more": True}, {"object": "list", "data": [ours]}]
    found, urls = seek(OPENAI, pages, chat_call())
    assert found == [ListedBatch("batch_abc123", is_ours=True)]
    assert urls == ["https://acme.test/batches?limit=100", "https://acme.test/batches?limit=100&after=batch_0"]
    found, urls = seek(OPENAI, [pages[0]], chat_call(), since=1711471533 + 7_200)
    assert (found, len(urls)) == ([], 1)  # older batches cannot match
    assert seek(OPENAI, [{"data": []}], chat_call())[0] == []


def test_anthropic_names_the_batches_of_the_same_size_and_time() -> None:
    counts = {"processing": 2}
    first = {**ANTHROPIC_BATCH, "id": "m_1", "request_counts": counts}
    pages = [
        {"data": [first, ANTHROPIC_BATCH], "has_more": True, "last_id": "m_9"},
        {"data": [{**first, "id": "m_2", "created_at": "2024-09-23T18:00:00Z"}], "has_more": True, "last_id": "m_2"},
    ]
    since = 1727203044.0  # creation time of the first batches
    found, urls = seek(ANTHROPIC, pages, chat_call("anthropic-messages"), since)
    assert found == [ListedBatch("m_1", is_ours=None)]
    assert urls[1].endswith("/v1/messages/batches?limit=100&after_id=m_9")


def test_gemini_finds_a_batch_by_its_display_name() -> None:
    ours = {"name": "batches/2", "metadata": {"displayName": "k1"}}
    pages = [{"operations": [GEMINI_BATCH], "nextPageToken": "t"}, {"operations": [ours]}]
    found, urls = seek(GEMINI, pages, chat_call("gemini-generate"))
    assert found == [ListedBatch("batches/2", is_ours=True)]
    assert urls[1] == "https://acme.test/v1beta/batches?pageSize=100&pageToken=t"
    assert seek(GEMINI, [{}], chat_call("gemini-generate"))[0] == []


# Providers with a batch API


def test_every_row_that_names_a_batch_api_names_one_that_takes_its_requests() -> None:
    rows = [row for row in list_providers() if row.batch_api]
    assert {row.id for row in rows} >= {"openai", "openai-responses", "anthropic", "gemini", "simulator"}
    for row in rows:
        assert row.batch_api in batch_api_names()
        assert find_batch_api(row).name == row.batch_api
        assert not row.path  # batch requests go to other paths than `path`


@pytest.mark.parametrize("provider", ["vertex", "bedrock", "azure", "mistral"])
def test_a_provider_without_a_batch_api_is_refused_and_others_are_named(provider: str) -> None:
    with pytest.raises(ConfigurationError, match=r"anthropic, gemini, .*openai") as caught:
        find_batch_api(find_provider(provider))
    assert str(caught.value).startswith(f"{provider}: LM Deluge knows no batch API of this provider")
