"""Requests to AWS: signed so that a server which knows the secret agrees, with URLs as they were signed."""

from __future__ import annotations

import builtins
import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials

from lm_deluge import LLMClient
from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests import aws
from lm_deluge.api_requests.credentials import find_base_url, find_key, has_key
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import APIError, AuthenticationError, MissingAPIKeyError, MissingExtraError
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta, UsageReported
from lm_deluge.models.registry import find_model, find_provider
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage
from loopback import NEXT, Loopback, Step, plain

ACCESS_KEY, SECRET_KEY, TOKEN = "AKIDEXAMPLE00000", "the/secret+key/1234567890", "token/with+signs==/0987654321"
ARN = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-v1:0"
EVENTS = [
    ResponseStarted(),
    TextDelta("Hello"),
    UsageReported(Usage(input_tokens=1, output_tokens=1)),
    ResponseFinished("stop"),
]


def converse() -> list[Step]:
    body = b"".join(find_encoder("bedrock-converse").encode_stream(EVENTS))
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ncontent-length: {len(body)}\r\n\r\n"
    return [head.encode() + body, NEXT]


@pytest.fixture(autouse=True)
def _forget() -> None:
    aws._found.clear()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


async def ask(server: Loopback, model: str = ARN, **options: Any) -> APIResponse:
    base_url = options.pop("base_url", server.url.removesuffix("/v1"))
    async with LLMClient(f"bedrock:{model}", base_url=base_url, max_attempts=1, **options) as client:
        return await client.stream("Grüße", echo=None)


def signature_of(first: str, headers: dict[str, str], raw: list[str], body: bytes, region: str) -> str:
    """Sign what the server got once more, from the bytes that it got."""
    method, path, _ = first.split(" ")
    names = dict(part.split("=", 1) for part in raw[0].split(" ", 1)[1].split(", "))["SignedHeaders"].split(";")
    request = AWSRequest(method=method, url=f"http://{headers['host']}{path}", data=body)
    for name in names:
        request.headers[name] = headers[name]
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "bedrock", region)
    return signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)


class RawLoopback(Loopback):
    """One that keeps the letters of the headers that are looked at."""

    raw: list[str]

    async def _read_request(self, reader: Any) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n")[1:])
        named = {name.lower(): value for name, value in lines.items()}
        self.raw = [named.get("authorization", ""), named.get("x-amz-security-token", "")]
        self.requests.append(
            (
                head.decode().split("\r\n")[0],
                named,
                await reader.readexactly(int(named.get("content-length", "0"))),
            )
        )


@pytest.mark.parametrize("model", [ARN, "anthropic.claude-3-sonnet-20240229-v1:0", "a b/ü%", "plain"])
async def test_the_server_makes_the_same_signature(keys: None, model: str) -> None:
    async with RawLoopback(converse()) as server:
        response = await ask(server, model, extra_headers={"x-own": "kept  out of it"})
        ((first, headers, body),) = server.requests
    assert response.completion == "Hello"
    scheme, rest = server.raw[0].split(" ", 1)
    fields = dict(part.split("=", 1) for part in rest.split(", "))
    day = headers["x-amz-date"].partition("T")[0]
    assert scheme == "AWS4-HMAC-SHA256"
    assert fields["Credential"] == f"{ACCESS_KEY}/{day}/eu-west-1/bedrock/aws4_request"
    assert fields["SignedHeaders"] == "content-type;host;x-amz-date;x-amz-security-token"
    assert server.raw[1] == TOKEN
    assert fields["Signature"] == signature_of(first, headers, server.raw, body, "eu-west-1")


async def test_the_path_is_sent_as_it_was_signed(keys: None) -> None:
    async with Loopback(converse()) as server:
        await ask(server)
        first, headers, _ = server.requests[0]
    path = (
        "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.anthropic.claude-v1%3A0"
        "/converse-stream"
    )
    assert first == f"POST {path} HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("base_url", "region"),
    [
        ("https://bedrock-runtime.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://vpce-1a2b.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
        ("http://127.0.0.1:1", "eu-west-1"),
    ],
)
def test_the_region_of_the_host_wins(keys: None, base_url: str, region: str) -> None:
    call = Call(
        model=find_model("bedrock:m"),
        provider=find_provider("bedrock"),
        conversation=Conversation.user("x"),
        base_url=base_url,
    )
    assert aws._region(call) == region


async def test_a_key_of_bedrock_wins(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-x")
    async with Loopback(converse()) as server:
        await ask(server)
        await ask(server, api_key="bedrock-api-key-y")
        headers = [request[1] for request in server.requests]
    assert [each["authorization"] for each in headers] == ["bearer bedrock-api-key-x", "bearer bedrock-api-key-y"]
    assert not any("x-amz-date" in each for each in headers)


async def test_a_profile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[work]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "work")
    async with Loopback(converse()) as server:
        await ask(server)
        assert f"credential={ACCESS_KEY.lower()}/" in server.requests[0][1]["authorization"]


async def test_without_credentials_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with LLMClient("bedrock:m") as client:
        with pytest.raises(MissingAPIKeyError) as caught:
            await client.stream("hi", echo=None)
    assert "there are no AWS credentials" in str(caught.value)
    assert "AWS_BEARER_TOKEN_BEDROCK" in str(caught.value)
    assert (caught.value.provider, caught.value.model) == ("bedrock", "bedrock:m")


async def test_a_host_of_one_s_own_may_need_none() -> None:
    async with Loopback(converse()) as server:
        assert (await ask(server)).completion == "Hello"
        assert "authorization" not in server.requests[0][1]


async def test_a_chain_that_fails_says_so_and_shows_nothing(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    async with LLMClient("bedrock:m") as client:
        with pytest.raises(MissingAPIKeyError, match="cannot be loaded: ProfileNotFound") as caught:
            await client.stream("hi", echo=None)
    assert SECRET_KEY not in str(caught.value)


async def test_the_lookup_waits_in_a_thread_and_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    expiry = aws.datetime.now(aws.UTC) + aws.datetime.resolution * 10**6 * 36_000

    class Chain:
        def get_credentials(self) -> RefreshableCredentials:
            threads.append(threading.current_thread())
            return RefreshableCredentials(ACCESS_KEY, SECRET_KEY, TOKEN, expiry, dict, "test")

    monkeypatch.setattr(aws, "Session", Chain)
    async with Loopback(converse()) as server:
        await ask(server)
        await ask(server)
        assert server.requests[1][1]["x-amz-security-token"] == TOKEN.lower()
    (thread,) = threads
    assert thread is not threading.main_thread()


async def test_credentials_that_expire_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = []
    late = (aws.datetime.now(aws.UTC) + aws.datetime.resolution * 10**6 * 36_000).isoformat()

    def renew() -> dict[str, str]:
        renewed.append(threading.current_thread())
        return {"access_key": "AKIDRENEWED00000", "secret_key": SECRET_KEY, "token": TOKEN, "expiry_time": late}

    old = RefreshableCredentials(ACCESS_KEY, SECRET_KEY, TOKEN, aws.datetime.now(aws.UTC), renew, "test")
    monkeypatch.setattr(aws, "Session", type("Chain", (), {"get_credentials": lambda _: old}))
    async with Loopback(converse()) as server:
        await ask(server)
        await ask(server)
        assert all("akidrenewed00000" in request[1]["authorization"] for request in server.requests)
    (thread,) = renewed
    assert thread is not threading.main_thread()


async def test_what_was_sent_shows_up_in_no_error(keys: None) -> None:
    class Echo(RawLoopback):
        async def _read_request(self, reader: Any) -> None:
            await super()._read_request(reader)
            said = f"The canonical request is {self.raw[1]} {self.raw[0]} of {ACCESS_KEY}"
            said += f" with {self.raw[0].rpartition('Signature=')[2]}"
            body = json.dumps({"message": said}).encode()
            self.transcripts = [plain("403 X", body, "x-amzn-errortype: InvalidSignatureException:http://x")]

    async with Echo(converse()) as server:
        with pytest.raises(AuthenticationError) as caught:
            await ask(server)
        signature = server.raw[0].rpartition("Signature=")[2]
    shown = f"{caught.value} {vars(caught.value)}"
    assert "The canonical request is" in shown
    assert len(signature) == 64
    for secret in (signature, TOKEN, ACCESS_KEY, SECRET_KEY):
        assert secret not in shown


async def test_nothing_is_logged(keys: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with Loopback(converse()) as server:
            await ask(server)
    for secret in (SECRET_KEY, TOKEN, "Signature="):
        assert secret not in caplog.text


def test_without_botocore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("botocore")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "lm_deluge.api_requests.aws")
    find = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("botocore"):
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install botocore"):
        __import__("lm_deluge.api_requests.aws")


def test_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    bedrock = find_provider("bedrock")
    assert find_base_url(bedrock, None) == "https://bedrock-runtime.us-east-1.amazonaws.com"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert find_base_url(bedrock, None) == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    assert find_base_url(find_provider("bedrock-openai"), None) == (
        "https://bedrock-runtime.sa-east-1.amazonaws.com/openai/v1"
    )
    assert find_base_url(find_provider("bedrock-mantle"), None) == "https://bedrock-mantle.sa-east-1.api.aws/v1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://localhost:1/")
    assert find_base_url(bedrock, None) == "http://localhost:1"
    assert find_key(bedrock, find_model("bedrock:m"), "https://x", None) is None
    assert has_key(bedrock)


async def test_errors_of_aws_are_errors_of_ours(keys: None) -> None:
    body = b'{"message": "Too many requests, please wait before trying again."}'
    async with Loopback(plain("429 X", body, "x-amzn-errortype: ThrottlingException:http://internal/")) as server:
        with pytest.raises(APIError) as caught:
            await ask(server)
    assert (type(caught.value).__name__, caught.value.code) == ("RateLimitError", "ThrottlingException")
