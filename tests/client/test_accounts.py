"""Keys and base URLs by provider: no provider ever gets the key, or the requests, of another one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge import Conversation, LLMClient
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.models import registry
from lm_deluge.models.registry import find_model, find_provider, register_model, register_provider
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.simulator import Simulator
from loopback import HELLO, Loopback, answer, plain

GPT, CLAUDE = "gpt-4o", "claude-haiku-4-5"
URL = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module", autouse=True)
def _own_rows() -> Iterator[None]:
    """Rows as users register them: a host of their own, and another host that claims OpenAI's key variable."""
    own = {"otel_name": "openai", "adapter": "openai-chat", "quirks": find_provider("openai").quirks}
    register_provider(
        ProviderRow(id="own", base_url="http://own.test/v1", key_env=("OWN_API_KEY",), **own), replace=True
    )
    register_provider(
        ProviderRow(id="claims", base_url="http://claims.test/v1", key_env=("OPENAI_API_KEY",), **own), replace=True
    )
    register_model(ModelRow(id="own-model", name="m", provider="own"), replace=True)
    yield
    registry._registry.cache_clear()  # other tests compare the registry with its files


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "fallback": (GPT, {"fallback": CLAUDE, "api_key": "sk-1"}, 'api_key={"openai": "...", "anthropic": "..."}'),
    "fallbacks": (GPT, {"fallback": ["gpt-4o-mini", CLAUDE], "api_key": "sk-1"}, "set OPENAI_API_KEY and ANTHROPIC"),
    "list": ([GPT, CLAUDE], {"api_key": "sk-1"}, "several providers"),
    "local server": ([GPT, "ollama:qwen3"], {"api_key": "sk-1"}, "several providers"),
    "registered": ([GPT, "own-model"], {"api_key": "sk-1"}, '"own": "..."'),
    "registered provider": ([GPT, "own:x"], {"api_key": "sk-1"}, '"own": "..."'),
    "another host with the same variable": ([GPT, "claims:x"], {"api_key": "sk-1"}, '"claims": "..."'),
    "unknown model elsewhere": ([GPT, "mine"], {"api_key": "sk-1", "base_url": {"openai-compatible": URL}}, "several"),
    "URL, fallback": (GPT, {"fallback": CLAUDE, "base_url": URL}, 'base_url={"openai": "https://..."'),
    "URL, list": ([GPT, CLAUDE], {"base_url": URL}, "openai-compatible:"),
    "URL and key": ([GPT, CLAUDE], {"base_url": URL, "api_key": "sk-1"}, "base_url"),
    "a key in a header": ([GPT, CLAUDE], {"extra_headers": {"Authorization": "Bearer sk-1"}}, "'Authorization'"),
    "a key in another header": (GPT, {"fallback": CLAUDE, "extra_headers": {"X-API-Key": "sk-1"}}, "'X-API-Key'"),
    "misspelt provider": ([GPT, CLAUDE], {"api_key": {"open-ai": "sk-1"}}, "Did you mean openai?"),
    "keys and names exchanged": (GPT, {"api_key": {"sk-1": "openai"}}, "Known providers"),
    "number": (GPT, {"api_key": {"openai": 5}}, "names of providers to text"),
    "URL without scheme": (GPT, {"base_url": {"openai": "localhost"}}, "http://"),
    "list of numbers": (GPT, {"api_key": ["sk-1", 7]}, "a list of texts"),
    "no key in a list": (GPT, {"api_key": []}, "an empty list"),
    "no key for a provider": (GPT, {"api_key": {"openai": ()}}, "an empty list"),
    "keys of two providers": ([GPT, CLAUDE], {"api_key": ["sk-1", "sk-2"]}, "one api_key cannot serve"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_text_for_several_providers_is_refused(name: str) -> None:
    model, options, words = REFUSED[name]
    with pytest.raises(ConfigurationError) as caught:
        LLMClient(model, **options)
    assert words in str(caught.value)
    assert "sk-1" not in str(caught.value)


def plan_of(client: LLMClient, model: str) -> Any:
    return client.dispatcher.planner().plan(model, Conversation.user("hi"))


def key_of(client: LLMClient, model: str) -> str | None:
    key = plan_of(client, model).key
    return None if key is None else key.reveal()


ACCEPTED: dict[str, tuple[Any, dict[str, Any], dict[str, str | None]]] = {
    "two models": ([GPT, "gpt-4o-mini"], {"api_key": "sk-1"}, {GPT: "sk-1", "gpt-4o-mini": "sk-1"}),
    "two APIs of one company": (
        [GPT, "openai-responses:gpt-5"], {"api_key": "sk-1"}, {GPT: "sk-1", "openai-responses:gpt-5": "sk-1"},
    ),
    "mapping, two APIs": (
        [GPT, "openai-responses:gpt-5", CLAUDE], {"api_key": {"openai": "sk-1", "anthropic": "sk-2"}},
        {GPT: "sk-1", "openai-responses:gpt-5": "sk-1", CLAUDE: "sk-2"},
    ),
    "mapping, fallback": (
        GPT, {"fallback": CLAUDE, "api_key": {"openai": "sk-1", "anthropic": "sk-2"}}, {GPT: "sk-1", CLAUDE: "sk-2"},
    ),
    "mapping with more": (GPT, {"api_key": {"openai": "sk-1", "anthropic": "sk-2"}}, {GPT: "sk-1"}),
    "one host": (
        [GPT, "mine", "openai-compatible:claude"], {"api_key": "sk-1", "base_url": URL},
        {GPT: "sk-1", "mine": "sk-1", "openai-compatible:claude": "sk-1"},
    ),
    "first of several keys": (GPT, {"api_key": ["sk-1", "sk-2"]}, {GPT: "sk-1"}),
    "several keys of one provider": (
        [GPT, CLAUDE], {"api_key": {"openai": ["sk-1", "sk-2"], "anthropic": "sk-3"}}, {GPT: "sk-1", CLAUDE: "sk-3"},
    ),
    "a host that takes no key": ([GPT, "simulator"], {"api_key": "sk-1"}, {GPT: "sk-1", "simulator": None}),
    "registered": (
        ["own-model", GPT], {"api_key": {"own": "sk-3", "openai": "sk-1"}}, {"own-model": "sk-3", GPT: "sk-1"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_each_provider_has_its_key(name: str) -> None:
    model, options, keys = ACCEPTED[name]
    client = LLMClient(model, **options)
    assert {each: key_of(client, each) for each in keys} == keys


def test_each_provider_has_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://env.test")
    urls = {"openai": "http://a.test/v1", "openai-compatible": "http://b.test/v1"}
    client = LLMClient(
        [GPT, "mine", "openai-responses:gpt-5"], base_url=urls, fallback=CLAUDE, api_key={"anthropic": "k"}
    )
    hosts = {each: urlsplit(plan_of(client, each).request.url).hostname for each in ("mine", CLAUDE)}
    assert hosts == {"mine": "b.test", CLAUDE: "env.test"}
    with mock.patch.dict(os.environ, OPENAI_API_KEY="sk-env"):
        assert urlsplit(plan_of(client, "openai-responses:gpt-5").request.url).hostname == "a.test"
        assert key_of(client, "mine") is None  # the variable is OpenAI's


NAMES = [
    GPT,
    "gpt-4o-mini",
    "openai-responses:gpt-5",
    CLAUDE,
    "gemini-2.5-flash",
    "groq:x",
    "own-model",
    "claims:x",
    "mine",
]
KEYED = ("openai", "openai-responses", "anthropic", "gemini", "groq", "own", "claims", "openai-compatible")
SECRETS = {name: f"sk-of-{name}-0123456789" for name in KEYED}
# Whose keys a provider may get. OpenAI's variable is the user's choice for the provider `claims`, which names it.
FAMILY = {"openai": {"openai", "openai-responses"}, "openai-responses": {"openai", "openai-responses"}}
VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "own": "OWN_API_KEY",
}


@given(
    models=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    fallback=st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
    keys=st.one_of(
        st.none(),
        st.sampled_from(KEYED).map(SECRETS.get),
        st.lists(st.sampled_from(KEYED), max_size=5, unique=True).map(
            lambda names: {each: SECRETS[each] for each in names}
        ),
    ),
    urls=st.one_of(st.none(), st.just(URL), st.just({"openai-compatible": URL}), st.just({"openai": URL})),
    environment=st.lists(st.sampled_from(sorted(VARIABLES)), unique=True),
    header=st.sampled_from([None, "authorization", "X-Api-Key"]),
)
def test_no_key_reaches_another_provider_s_host(
    models: list[str], fallback: list[str], keys: Any, urls: Any, environment: list[str], header: str | None
) -> None:
    variables = {VARIABLES[each]: f"sk-env-{each}-0123456789" for each in environment}
    headers = {header: "Bearer sk-in-a-header"} if header else None
    with mock.patch.dict(os.environ, variables):
        try:
            client = LLMClient(models, fallback=fallback, api_key=keys, base_url=urls, extra_headers=headers)
        except ConfigurationError:
            return
        sent: dict[str, set[str]] = {}
        for model in client.dispatcher.rows.values():
            try:
                plan = plan_of(client, model.id)
            except DelugeError:
                continue  # no key, or no address
            hosts = sent.setdefault(str(urlsplit(plan.request.url).netloc), set())
            text = f"{plan.key.reveal() if plan.key else ''} {plan.request.url} {dict(plan.request.headers)} {headers}"
            allowed = FAMILY.get(model.provider, {model.provider})
            for owner, secret in SECRETS.items():
                if secret in text and isinstance(keys, dict):
                    assert owner in allowed
                if secret in text and isinstance(keys, str):
                    hosts.add("given")
            for owner in environment:
                if f"sk-env-{owner}-" in text:
                    assert owner in allowed | ({"openai"} if model.provider == "claims" else set())
            hosts |= {"header"} if headers else set()
        for mark in ("given", "header"):  # one text goes to one host
            assert sum(mark in marks for marks in sent.values()) <= 1


async def test_a_fallback_gets_its_own_key_over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = plain("503 Busy", b"{}")
    async with Loopback(busy) as openai, Simulator("Hello.") as sim:
        urls = {"openai": openai.url, "anthropic": sim.url}
        keys = {"openai": "sk-of-openai", "anthropic": "sk-of-anthropic"}
        async with LLMClient(GPT, fallback=CLAUDE, base_url=urls, api_key=keys, max_attempts=2) as client:
            response = await client.stream("hi", echo=None)
        assert response.model_internal == CLAUDE
        assert {headers["authorization"] for _, headers, _ in openai.requests} == {"bearer sk-of-openai"}
        assert "sk-of-openai" not in str([request.headers for request in sim.requests])
        assert sim.requests[0].headers["x-api-key"].endswith("opic")  # the simulator keeps no more


async def test_every_way_of_asking_keeps_keys_apart() -> None:
    async with Loopback(answer(HELLO)) as one, Loopback(answer(HELLO)) as two:
        urls = {"openai": one.url, "openai-compatible": two.url}
        keys = {"openai": "sk-one-123456", "openai-compatible": "sk-two-123456"}
        async with LLMClient([GPT, "mine"], base_url=urls, api_key=keys, progress=None) as client:
            await client.stream("hi", echo=None)
            await client.stream("hi", echo=None)
            await client.process_prompts_async(["a"] * 4, prefer_model="mine")
            await client.process_prompts_async(["a"] * 4)
            async for _ in client.stream_many(["a"] * 4):
                pass
            await client.wait_for(client.start_nowait("a", prefer_model="mine"))
        assert {headers["authorization"] for _, headers, _ in one.requests} == {"bearer sk-one-123456"}
        assert {headers["authorization"] for _, headers, _ in two.requests} == {"bearer sk-two-123456"}


def test_no_repr_shows_a_password_of_a_url() -> None:
    secret = "canary-1234"
    for urls in (f"http://u:{secret}@h.test/v1?key={secret}", {"openai": f"http://{secret}@h.test/v1#{secret}"}):
        options = LLMClient(GPT, base_url=urls).options
        assert "h.test/v1" in repr(options)
        assert secret not in repr(options)
    row = ProviderRow(
        id="x", otel_name="x", adapter="openai-chat", base_url=f"http://u:{secret}@h", headers={"authorization": secret}
    )
    assert secret not in repr(row)
    assert find_model(GPT).id in repr(find_model(GPT))
