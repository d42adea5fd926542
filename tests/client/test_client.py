"""`LLMClient` as users meet it: what it refuses before a byte is sent, whom it asks, and what it sends."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from lm_deluge import Conversation, LLMClient, Message, SamplingParams, Timeouts
from lm_deluge import errors as e
from lm_deluge.api_requests.openai import shared_transport, stream_chat
from loopback import HELLO, Loopback, answer


class Uncommon(BaseModel):
    call: Callable[[], int]


BAD_CLIENTS: dict[str, tuple[Any, dict[str, Any], type[e.ConfigurationError], str]] = {
    "unknown model": ("gpt-4oo", {"base_url": None}, e.UnknownModelError, "gpt-4o"),
    "unknown provider": ("nobody:m", {"base_url": None}, e.UnknownModelError, "Known providers"),
    "no model": ([], {}, e.ConfigurationError, "needs a model"),
    "empty name": (" ", {}, e.UnknownModelError, "empty"),
    "model None": (None, {}, e.ConfigurationError, "NoneType"),
    "model 5": (5, {}, e.ConfigurationError, "int"),
    "a list of 5": ([5], {}, e.ConfigurationError, "empty"),
    "misspelt option": ("gpt-4o", {"temprature": 1}, e.ConfigurationError, "Did you mean temperature"),
    "foreign option": ("gpt-4o", {"zzz": 1}, e.ConfigurationError, "Known options"),
    "temperature": ("gpt-4o", {"temperature": 3}, e.ConfigurationError, "between 0 and 2"),
    "stop": ("gpt-4o", {"stop": 5}, e.ConfigurationError, "stop"),
    "max_new_tokens": ("gpt-4o", {"max_new_tokens": 0}, e.ConfigurationError, "max_new_tokens"),
    "no attempts": ("gpt-4o", {"max_attempts": 0}, e.ConfigurationError, "max_attempts"),
    "half an attempt": ("gpt-4o", {"max_attempts": 1.5}, e.ConfigurationError, "integer"),
    "timeouts 5": ("gpt-4o", {"timeouts": 5}, e.ConfigurationError, "timeouts=Timeouts"),
    "sampling as a dict": ("gpt-4o", {"sampling_params": {"seed": 1}}, e.ConfigurationError, "SamplingParams"),
    "base_url without scheme": ("gpt-4o", {"base_url": "localhost:80"}, e.ConfigurationError, "http://"),
    "base_url 5": ("gpt-4o", {"base_url": 5}, e.ConfigurationError, "base_url is not text"),
    "api_key 5": ("gpt-4o", {"api_key": 5}, e.ConfigurationError, "api_key must be text"),
    "proxy 5": ("gpt-4o", {"proxy": 5}, e.ConfigurationError, "proxy is not text"),
    "headers as a list": ("gpt-4o", {"extra_headers": ["x"]}, e.ConfigurationError, "extra_headers"),
    "body 5": ("gpt-4o", {"extra_body": 5}, e.ConfigurationError, "extra_body"),
    "event size": ("gpt-4o", {"max_event_bytes": 2000.5}, e.ConfigurationError, "integer"),
}


@pytest.mark.parametrize("name", BAD_CLIENTS)
def test_a_bad_option_is_refused_when_the_client_is_made(name: str) -> None:
    model, options, kind, words = BAD_CLIENTS[name]
    with pytest.raises(kind) as caught:
        LLMClient(model, **options)
    assert words in str(caught.value)


BAD_CALLS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "prompt None": ({}, {"prompt": None}, "NoneType"),
    "prompt bytes": ({}, {"prompt": b"hi"}, "bytes"),
    "empty text": ({}, {"prompt": ""}, "the prompt is empty"),
    "blank text": ({}, {"prompt": " \n"}, "the prompt is empty"),
    "empty conversation": ({}, {"prompt": Conversation()}, "the prompt is empty"),
    "conversation of blanks": ({}, {"prompt": Conversation.user(" ")}, "the prompt is empty"),
    "a message without content": ({}, {"prompt": [{"role": "user"}]}, "content of a message is missing"),
    "a list of texts": ({}, {"prompt": ["x"]}, "Message.user"),
    "half a character": ({}, {"prompt": "\ud800"}, "JSON"),
    "tools as text": ({}, {"tools": "add"}, "list of tools"),
    "tools 5": ({}, {"tools": 5}, "list of tools"),
    "a tool of text": ({}, {"tools": ["add"]}, "str is no tool"),
    "a tool without a name": ({}, {"tools": [{"parameters": {}}]}, "needs a name"),
    "a tool with a bad name": ({}, {"tools": [{"name": "a b"}]}, "is not a valid tool name"),
    "a tool of nothing": ({}, {"tools": [{"function": None}]}, "function"),
    "two tools of one name": ({}, {"tools": [{"name": "a"}, {"name": "a"}]}, "two tools"),
    "a tool that is no JSON": ({}, {"tools": [{"name": "a", "parameters": {"x": object()}}]}, "JSON"),
    "output as text": ({}, {"output": "object"}, "JSON schema"),
    "output 5": ({}, {"output": 5}, "no type"),
    "output of an unknown type": ({}, {"output": {"type": "strin"}}, "no provider accepts"),
    "output without a schema": ({}, {"output": Uncommon}, "Uncommon has no JSON schema"),
    "sampling as a dict": ({}, {"sampling_params": {"seed": 1}}, "SamplingParams"),
    "echo": ({}, {"echo": "stderr"}, "echo"),
    "no key": ({"api_key": None, "base_url": None}, {}, "OPENAI_API_KEY"),
    "key with a line end": ({"api_key": "sk-a\nb"}, {}, "Copy it again"),
    "key of snowmen": ({"api_key": "\u2603"}, {}, "Copy it again"),
    "header with a line end": ({"extra_headers": {"x": "a\r\nb: c"}}, {}, "line end"),
    "name with a line end": ({"extra_headers": {"x\r\ny": "a"}}, {}, "not a header name"),
    "name with a colon": ({"extra_headers": {"x:": "a"}}, {}, "not a header name"),
    "name with a blank": ({"extra_headers": {"x y": "a"}}, {}, "not a header name"),
    "header without a name": ({"extra_headers": {"": "a"}}, {}, "not a header name"),
    "header of half a character": ({"extra_headers": {"x": "\ud800"}}, {}, "is not text"),
    "header 5": ({"extra_headers": {"x": 5}}, {}, "text to text"),
    "body that is no JSON": ({"extra_body": {"x": object()}}, {}, "JSON"),
    "URL with a password": ({"base_url": "http://u:p@127.0.0.1/v1"}, {}, "password"),
    "URL with a query": ({"base_url": "http://127.0.0.1/v1?x=1"}, {}, "query"),
    "URL with a bad port": ({"base_url": "http://127.0.0.1:99999/v1"}, {}, "base URL"),
    "URL with half an address": ({"base_url": "http://[::1/v1"}, {}, "base URL"),
    "URL without a host": ({"base_url": "http:///v1"}, {}, "base URL"),
    "tool choice without the tool": ({"tool_choice": "sub"}, {}, "sub"),
    "sampling that the model refuses": ({"model": "o3", "temperature": 0.5}, {}, "temperature"),
}
BAD_AT_USE: dict[str, tuple[dict[str, Any], str]] = {
    "proxy without scheme": ({"proxy": "no url"}, "http://host:port"),
    "proxy of another kind": ({"proxy": "socks5://127.0.0.1:1080"}, "HTTP proxy"),
    "proxy with a bad port": ({"proxy": "http://127.0.0.1:nan"}, "HTTP proxy"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_a_bad_call_is_refused_before_it_is_sent(name: str) -> None:
    options, arguments, words = BAD_CALLS[name]
    async with Loopback(answer(HELLO)) as server:
        options = {"model": "gpt-4o", "base_url": server.url, "api_key": "sk-test", **options}
        for method in ("stream", "stream_sync"):
            own = {name: value for name, value in arguments.items() if name != "echo" or method == "stream"}
            if own != arguments:
                continue
            client = LLMClient(**options)
            with pytest.raises(e.ConfigurationError) as caught:
                getattr(client, method)(**{"prompt": "hi", **own})
            assert words in str(caught.value)
            assert caught.value.billed == "no"
        assert server.connections == 0


@pytest.mark.parametrize("name", BAD_AT_USE)
async def test_a_bad_proxy_is_refused_before_a_byte_is_sent(name: str) -> None:
    options, words = BAD_AT_USE[name]
    async with Loopback(answer(HELLO)) as server:
        async with LLMClient("gpt-4o", base_url=server.url, api_key="sk-test", **options) as client:
            with pytest.raises(e.ConfigurationError) as caught:
                await client.stream("hi", echo=None)
        assert words in str(caught.value)
        assert server.connections == 0


async def ask(
    server: Loopback, model: Any = "gpt-4o", prompt: Any = "hi", **options: Any
) -> tuple[dict, dict[str, str]]:
    """Return the body and the headers of the request that a call makes."""
    call = {name: options.pop(name) for name in ("tools", "output", "sampling_params") if name in options}
    shared = {"base_url": server.url, "api_key": "sk-test", **options}
    async with LLMClient(model, **shared) as client:
        await client.stream(prompt, echo=None, **call)
    _, headers, body = server.requests[-1]
    return json.loads(body), headers


async def test_the_key_of_the_environment_goes_to_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-of-openai ")
    async with Loopback(answer(HELLO)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
        async with LLMClient("gpt-4o") as client:
            await client.stream("hi", echo=None)
            await LLMClient("gpt-4o", api_key="sk-explicit").stream("hi", echo=None)
        keys = [headers["authorization"] for _, headers, _ in server.requests]
        assert keys == ["bearer sk-of-openai", "bearer sk-explicit"]
        assert server.requests[0][0] == "POST /v1/chat/completions HTTP/1.1"


async def test_the_key_of_openai_is_not_shown_to_any_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    async with Loopback(answer(HELLO)) as server:
        body, headers = await ask(server, "my-model", api_key=None)
        assert body["model"] == "my-model"
        assert "authorization" not in headers
        async for _ in stream_chat("my-model", "hi", base_url=server.url):
            pass
        await shared_transport().close()
        assert "sk-of-openai" not in str(server.requests)
        _, headers = await ask(server, "my-model", api_key="sk-own")
        assert headers["authorization"] == "bearer sk-own"


async def test_a_call_s_sampling_wins_field_by_field() -> None:
    async with Loopback(answer(HELLO)) as server:
        body, _ = await ask(server, temperature=0.2, seed=7)
        assert (body["temperature"], body["seed"]) == (0.2, 7)
        body, _ = await ask(
            server,
            sampling_params=SamplingParams(temperature=1.5, max_new_tokens=9),
            temperature=0.2,
            seed=7,
        )
        assert (body["temperature"], body["seed"], body["max_completion_tokens"]) == (1.5, 7, 9)
        body, _ = await ask(server)
        assert not {"temperature", "seed", "max_completion_tokens", "top_p"} & set(body)


async def test_models_take_turns() -> None:
    async with Loopback(answer(HELLO)) as server:
        async with LLMClient(["gpt-4o", "gpt-4o-mini", "mine"], base_url=server.url, api_key="k") as client:
            responses = [await client.stream("hi", echo=None) for _ in range(5)]
        asked = [json.loads(body)["model"] for _, _, body in server.requests]
        assert asked == ["gpt-4o", "gpt-4o-mini", "mine", "gpt-4o", "gpt-4o-mini"]
        assert [each.model_internal for each in responses] == asked


async def test_extra_headers_and_body_win() -> None:
    async with Loopback(answer(HELLO)) as server:
        body, headers = await ask(
            server,
            extra_headers={"Authorization": "Basic abc", "X-Own": "1", "User-Agent": "me"},
            extra_body={"model": "other", "own": {"a": [1, None]}},
        )
        assert (headers["authorization"], headers["x-own"], headers["user-agent"]) == ("basic abc", "1", "me")
        assert (body["model"], body["own"]) == ("other", {"a": [1, None]})
        raw = server.requests[-1]
        assert raw[2].count(b'"model"') == 1


async def test_a_conversation_is_not_changed_by_asking() -> None:
    conversation = Conversation.system("s").user("u")
    async with Loopback(answer(HELLO)) as server:
        body, _ = await ask(server, prompt=conversation)
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        await ask(server, prompt=Message.user("x"))
        await ask(server, prompt=[Message.user("x")])
    assert len(conversation) == 2


class Proxy(Loopback):
    """A proxy for http:// answers by itself: the request line tells whom it was asked for."""


@pytest.mark.parametrize("how", ["argument", "HTTP_PROXY", "http_proxy", "without scheme"])
async def test_a_proxy_is_used(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(answer(HELLO)) as proxy, Loopback(answer(HELLO)) as server:
        address = f"http://user:pass@127.0.0.1:{proxy.port}"
        options = {"proxy": address} if how == "argument" else {}
        if how == "without scheme":
            monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        elif not options:
            monkeypatch.setenv(how, address)
        async with LLMClient("gpt-4o", base_url=server.url, api_key="sk-test", **options) as client:
            assert (await client.stream("hi", echo=None)).completion == "Hello world"
        assert server.connections == 0
        first, headers, _ = proxy.requests[0]
        assert first == f"POST {server.url}/chat/completions HTTP/1.1"
        assert headers.get("proxy-authorization") == (None if how == "without scheme" else "basic dxnlcjpwyxnz")


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
async def test_hosts_that_need_no_proxy_get_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(answer(HELLO)) as proxy, Loopback(answer(HELLO)) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv(name, "127.0.0.1,localhost")
        await ask(server)
        assert (proxy.connections, server.connections) == (0, 1)


async def test_https_goes_through_a_tunnel_and_a_refused_tunnel_is_a_failed_connection() -> None:
    refusal = [b"HTTP/1.1 407 Authenticate\r\ncontent-length: 0\r\n\r\n", "fin"]
    async with Proxy(refusal) as proxy, asyncio.timeout(20):
        address = f"http://user:pass@127.0.0.1:{proxy.port}"
        options = {"proxy": address, "timeouts": Timeouts(connect=5), "max_attempts": 1}
        async with LLMClient("gpt-4o", base_url="https://127.0.0.1:9/v1", api_key="sk-test", **options) as client:
            with pytest.raises(e.ConnectError) as caught:
                await client.stream("hi", echo=None)
        assert "407" in str(caught.value)
        first, headers, _ = proxy.requests[0]
        assert first.startswith("CONNECT 127.0.0.1:9 ")
        assert "authorization" not in headers


def test_reprs_show_no_secret() -> None:
    client = LLMClient(
        "gpt-4o",
        api_key="sk-canary",
        extra_headers={"x": "canary"},
        proxy="http://u:canary@127.0.0.1:1",
        base_url="http://127.0.0.1:1",
    )
    stream = client.stream("hi")
    spec = stream._call._spec
    plan = spec.plan_for("gpt-4o")
    for thing in (client, client.options, stream, stream._call, spec, plan, plan.call):
        assert "canary" not in repr(thing)
        assert "canary" not in str(thing)
