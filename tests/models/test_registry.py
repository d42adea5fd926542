"""Look-up and registration of models and providers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lm_deluge.errors import ConfigurationError, UnknownModelError
from lm_deluge.models import registry
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
from lm_deluge.usage import Price


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    registry._registry.cache_clear()
    yield
    registry._registry.cache_clear()


def a_provider(provider_id: str = "acme") -> ProviderRow:
    return ProviderRow(id=provider_id, otel_name="acme", adapter="openai-chat", base_url="https://acme.test/v1")


def test_a_model_of_the_registry_is_found_by_its_id() -> None:
    row = registry.find_model("gpt-4o")
    assert (row.id, row.name, row.provider) == ("gpt-4o", "gpt-4o", "openai")
    assert row.price is not None
    assert row.context_window == 128_000


def test_any_model_can_be_named_with_its_provider() -> None:
    row = registry.find_model("openai:anything")
    assert row == ModelRow(id="openai:anything", name="anything", provider="openai")
    assert row.capabilities == Capabilities()
    assert row.price is None


def test_the_wire_name_may_hold_colons() -> None:
    assert registry.find_model("openai:ft:gpt-4o:org::1").name == "ft:gpt-4o:org::1"


def test_naming_the_provider_keeps_what_is_known_of_the_model() -> None:
    named, plain = registry.find_model("openai:gpt-4o"), registry.find_model("gpt-4o")
    assert named.id == "openai:gpt-4o"
    assert (named.name, named.price, named.capabilities) == (plain.name, plain.price, plain.capabilities)


def test_what_is_known_of_a_model_is_not_said_of_another_providers_model_of_that_name() -> None:
    row = registry.find_model("openai-compatible:gpt-4o")
    assert row == ModelRow(id="openai-compatible:gpt-4o", name="gpt-4o", provider="openai-compatible")


def test_a_misspelt_model_names_the_nearest_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"'gpt-4oo'.*gpt-4o\b") as caught:
        registry.find_model("gpt-4oo")
    assert caught.value.suggestions[0] == "gpt-4o"
    assert "openai:gpt-4oo" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "id"),
    [
        ("GPT-4o", "gpt-4o"),
        ("Claude-Opus-5-5", "claude-opus-5-5"),
        ("models/gemini-3.8-flash", "gemini-3.8-flash"),
        ("google:gemini-3.8-flash", "gemini:gemini-3.8-flash"),
        ("google_genai:gemini-3.8-flash", "gemini:gemini-3.8-flash"),
        ("bedrock_converse:us.anthropic.claude-opus-5-5", "bedrock:us.anthropic.claude-opus-5-5"),
        ("azure_openai:gpt-6-sol", "azure:gpt-6-sol"),
        ("friendliai:zai-org/GLM-5.3", "friendli:zai-org/GLM-5.3"),
        ("x-ai:grok-4.7", "xai:grok-4.7"),
        # With and without `-latest`, a date and dots.
        ("claude-opus-5-latest", "claude-opus-5"),
        ("grok-4.7-latest", "grok-4.7"),
        ("mistral-large", "mistral-large-latest"),
        ("codestral", "codestral-latest"),
        ("claude-haiku-4.5", "claude-haiku-4-5"),
        # Names of lm-deluge 0.0.168.
        ("claude-4.5-sonnet", "claude-sonnet-4-5"),
        ("claude-5.5-opus", "claude-opus-5-5"),
        ("claude-4.6-opus-bedrock", "bedrock:us.anthropic.claude-opus-4-6-v1"),
        ("claude-5.5-haiku-bedrock-global", "bedrock:global.anthropic.claude-haiku-5-5"),
        ("gpt-oss-120b-groq", "groq:openai/gpt-oss-120b"),
        ("llama-3.3-70b-groq", "groq:llama-3.3-70b-versatile"),
        ("gpt-oss-20b-fireworks", "fireworks:accounts/fireworks/models/gpt-oss-20b"),
        ("gpt-6-sol-azure", "azure:gpt-6-sol"),
        ("kimi-k2.7-code-cf", "cloudflare:@cf/moonshotai/kimi-k2.7-code"),
        ("minimax-m2.1", "MiniMax-M2.1"),
        ("command-a", "command-a-03-2025"),
        ("grok-4.1-fast", "grok-4-1-fast"),
        ("nova-lite", "bedrock:us.amazon.nova-lite-v1:0"),
    ],
)
def test_other_spellings_are_understood(written: str, id: str) -> None:
    assert registry.find_model(written) == registry.find_model(id)


@pytest.mark.parametrize("name", ["gpt-6.2-sol-2031-01-15", "claude-opus-5-5-20310115"])
def test_a_dated_name_is_sent_as_it_is_written(name: str) -> None:
    row, plain = registry.find_model(name), registry.find_model(name.rpartition("-2031")[0])
    assert (row.id, row.name) == (name, name)
    assert (row.price, row.capabilities, row.provider) == (plain.price, plain.capabilities, plain.provider)


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("gemini-3-pro", "gemini:gemini-3-pro"),
        ("claude-sonnet-7", "anthropic:claude-sonnet-7"),
        ("grok-12", "xai:grok-12"),
        ("gpt-9", "openai:gpt-9"),
    ],
)
def test_the_example_of_an_unknown_name_is_of_the_provider_that_serves_such_models(name: str, example: str) -> None:
    with pytest.raises(UnknownModelError, match=f"provider:model, {example} for example") as caught:
        registry.find_model(name)
    provider = example.partition(":")[0]
    assert {registry.find_model(each).provider for each in caught.value.suggestions} == {provider}


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("opus", "claude-opus-5-5"),
        ("claude", "claude-opus-5-5"),
        ("Haiku", "claude-haiku-5-5"),
        ("gpt", "gpt-6.2-sol"),
        ("sol", "gpt-6.2-sol"),
        ("meta/llama-4", "openrouter:meta-llama/llama-4-scout"),
    ],
)
def test_a_part_of_a_name_suggests_the_newest_models_with_it(name: str, suggested: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        registry.find_model(name)
    assert suggested in caught.value.suggestions


def test_suggestions_leave_out_models_that_have_ended() -> None:
    ended = [row.id for row in registry.list_models() if row.status == "retired"]
    assert len(ended) > 100
    for name in ended[::9]:
        with pytest.raises(UnknownModelError) as caught:
            registry.find_model(f"{name.partition(':')[2] or name}~")
        assert not set(caught.value.suggestions) & set(ended), name


def test_a_variant_at_openrouter_has_the_row_of_its_model() -> None:
    base = registry.find_model("openrouter:openai/gpt-oss-20b")
    fast, free = (registry.find_model(f"{base.id}:{variant}") for variant in ("nitro", "free"))
    assert (fast.name, fast.price, fast.capabilities) == (f"{base.name}:nitro", base.price, base.capabilities)
    assert free.price == Price(input=0.0, output=0.0)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("bedrock:eu.anthropic.claude-opus-5-5-20310101-v1:0", "bedrock:us.anthropic.claude-opus-5-5"),
        ("huggingface:acme/claude-sonnet-5-5", "claude-sonnet-5-5"),
        ("openai:ft:gpt-6-sol:acme::9", "openai:gpt-6-sol"),
    ],
)
def test_a_model_without_a_row_is_described_by_its_family(name: str, like: str) -> None:
    one, other = registry.find_model(name).capabilities, registry.find_model(like).capabilities
    names = ("reasoning", "reasoning_efforts", "sampling", "forced_tool_choice", "prefill", "stop", "needs_responses")
    assert one.reasoning
    assert registry.find_model("openai:gpt-6-nova").capabilities == Capabilities()
    assert [getattr(one, each) for each in names] == [getattr(other, each) for each in names]


def test_a_name_like_no_other_still_gets_advice() -> None:
    with pytest.raises(UnknownModelError, match="provider:model") as caught:
        registry.find_model("zzzzzzzzzzzz")
    assert caught.value.suggestions == ()


@pytest.mark.parametrize("name", ["", "   ", None, 4])
def test_an_empty_name_is_refused(name: object) -> None:
    with pytest.raises(UnknownModelError, match="empty"):
        registry.find_model(name)  # type: ignore[arg-type]


def test_a_model_of_an_unknown_provider_names_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"no provider 'opnai'.*openai") as caught:
        registry.find_model("opnai:gpt-4o")
    assert "openai" in caught.value.suggestions


def test_a_provider_without_a_model_is_no_model() -> None:
    with pytest.raises(UnknownModelError, match="no model 'openai:'"):
        registry.find_model("openai:")


def test_an_unknown_provider_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownModelError, match=r"no provider 'nope'.*openai, openai-chat, openai-compatible.*simulator"
    ):
        registry.find_provider("nope")


def test_providers_are_listed_by_id() -> None:
    ids = [row.id for row in registry.list_providers()]
    assert ids == sorted(ids)
    assert {"openai", "openai-compatible", "simulator"} <= set(ids)


def test_models_are_listed_by_provider_and_id() -> None:
    rows = registry.list_models()
    assert rows == sorted(rows, key=lambda row: (row.provider, row.id))
    assert {"openai", "simulator"} <= {row.provider for row in rows}


def test_the_list_takes_a_provider_and_a_part_of_the_id() -> None:
    assert [row.id for row in registry.list_models(provider="simulator")] == ["simulator"]
    found = registry.list_models(search="GPT-4.1-M")
    assert found
    assert all("gpt-4.1-m" in row.id for row in found)
    assert registry.list_models(provider="simulator", search="gpt") == []


@pytest.mark.parametrize("search", ["", "in no id at all"])
def test_the_list_of_an_unknown_provider_is_an_error(search: str) -> None:
    with pytest.raises(UnknownModelError):
        registry.list_models(provider="nope", search=search)


def test_a_model_can_be_added_once() -> None:
    row = ModelRow(id="mine", name="mine-v1", provider="openai", price=Price(input=1, output=2))
    registry.register_model(row)
    assert registry.find_model("mine") is row
    assert row in registry.list_models(search="mine")
    with pytest.raises(ConfigurationError, match="'mine' already"):
        registry.register_model(row)


def test_a_model_of_the_registry_cannot_be_replaced() -> None:
    with pytest.raises(ConfigurationError, match="'gpt-4o' already"):
        registry.register_model(ModelRow(id="gpt-4o", name="gpt-4o", provider="openai"))


def test_a_model_needs_a_known_provider() -> None:
    with pytest.raises(UnknownModelError, match="'acme'"):
        registry.register_model(ModelRow(id="mine", name="mine", provider="acme"))


def test_a_provider_can_be_added_once() -> None:
    registry.register_provider(a_provider())
    assert registry.find_provider("acme") == a_provider()
    assert registry.find_model("acme:small").provider == "acme"
    with pytest.raises(ConfigurationError, match="'acme' already"):
        registry.register_provider(a_provider())
    with pytest.raises(ConfigurationError, match="'openai' already"):
        registry.register_provider(a_provider("openai"))


def test_rows_are_replaced_where_that_is_said() -> None:
    row = ModelRow(id="gpt-4o", name="gpt-4o", provider="openai")
    registry.register_model(row, replace=True)
    assert registry.find_model("gpt-4o") is row
    registry.register_provider(a_provider("groq"), replace=True)
    assert registry.find_provider("groq").base_url == "https://acme.test/v1"


def test_ways_to_one_provider_share_its_models() -> None:
    """Another API, the same key: `openai-responses:gpt-4o` is OpenAI's gpt-4o."""
    openai = registry.find_provider("openai")
    twin = ProviderRow(
        id="twin", otel_name="openai", adapter="openai-chat", base_url="https://x.test", key_env=openai.key_env
    )
    registry.register_provider(twin)
    row = registry.find_model("twin:gpt-4o")
    assert (row.id, row.name, row.provider) == ("twin:gpt-4o", "gpt-4o", "twin")
    assert row.price == registry.find_model("gpt-4o").price
    assert registry.find_model("twin:other").price is None
    assert registry.find_model("azure-deployment:gpt-4o").price == registry.find_model("azure:gpt-4o").price


def test_a_models_name_may_hold_its_providers_colon() -> None:
    row = registry.find_model("groq:llama-3.3-70b-versatile")
    assert (row.name, row.provider) == ("llama-3.3-70b-versatile", "groq")


def test_what_is_added_is_gone_with_the_process() -> None:
    registry.register_provider(a_provider())
    registry._registry.cache_clear()
    with pytest.raises(UnknownModelError):
        registry.find_provider("acme")


def test_a_model_at_another_host_takes_what_it_takes_at_its_maker_s() -> None:
    maker, other = registry.find_model("claude-haiku-4-5"), registry.find_model("vertex-anthropic:claude-haiku-4-5")
    assert (other.name, other.provider) == ("claude-haiku-4-5", "vertex-anthropic")
    assert maker.price is not None
    assert other.price == msgspec.structs.replace(maker.price, region_factors={"regional": 1.1})
    assert other.capabilities == maker.capabilities
    assert maker.capabilities.reasoning_budget
    assert registry.find_model("vertex-express:gemini-2.5-pro").capabilities.reasoning_budget


@pytest.mark.parametrize(
    ("written", "id"),
    [
        ("openai/gpt-4o", "gpt-4o"),
        ("OpenAI/gpt-4o", "gpt-4o"),
        ("openai/o3-pro", "o3-pro"),  # at another API of the same company
        ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("gemini/gemini-2.5-pro", "gemini-2.5-pro"),
        ("groq/llama-3.3-70b-versatile", "groq:llama-3.3-70b-versatile"),
        ("openrouter/openai/gpt-4o", "openrouter:openai/gpt-4o"),
        ("ollama/llama3", "ollama:llama3"),
        ("google/gemini-3.8-flash", "gemini-3.8-flash"),
        ("x-ai/grok-4.7", "grok-4.7"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("vertex_ai/claude-opus-5-5", "vertex-anthropic:claude-opus-5-5"),
        ("together_ai/zai-org/GLM-5.3", "together:zai-org/GLM-5.3"),
    ],
)
def test_a_slash_after_the_provider_is_understood(written: str, id: str) -> None:
    assert registry.find_model(written) == registry.find_model(id)


@pytest.mark.parametrize(
    ("written", "suggested"),
    [
        ("google/gemini-9-pro", "gemini-2.5-pro"),
        ("x-ai/grok-9.7", "grok-4.7"),
        ("anthropic/claude-sonnet-9.5", "claude-sonnet-5"),
        ("openai/gpt-oss-120b", "groq:openai/gpt-oss-120b"),
        ("simulator/x", "simulator"),
    ],
)
def test_a_name_of_another_vendor_names_the_right_model(written: str, suggested: str) -> None:
    with pytest.raises(UnknownModelError, match="Did you mean") as caught:
        registry.find_model(written)
    assert suggested in caught.value.suggestions


def test_at_a_host_of_the_users_own_the_whole_name_is_the_models() -> None:
    row = registry.find_served_model("openai/gpt-4o", "http://127.0.0.1:8000/v1")
    assert (row.name, row.provider) == ("openai/gpt-4o", "openai-compatible")


OLDER_NAMES = (Path(__file__).parent / "old_names.txt").read_text("utf-8").split()
NOT_SERVED = {"isaac-0.1", "isaac-0.2-1b", "isaac-0.2-2b-preview", "perceptron-mk1", "moondream-cloud"}


def test_the_names_of_the_older_library_are_understood() -> None:
    """All 322 names of lm-deluge 0.0.168, but for models of two companies whose APIs are not supported."""
    assert len(OLDER_NAMES) == 322
    not_found = set()
    for name in OLDER_NAMES:
        try:
            registry.find_model(name)
        except UnknownModelError:
            not_found.add(name)
    assert not_found == NOT_SERVED


@pytest.mark.parametrize(
    ("name", "provider", "wire_name"),
    [
        ("claude-4.5-haiku", "anthropic", "claude-haiku-4-5"),
        ("claude-3.7-sonnet", "anthropic", "claude-3-7-sonnet-20250219"),
        ("Claude-3.7-Sonnet", "anthropic", "claude-3-7-sonnet-20250219"),
        ("gemini-2.5-flash-vertex", "vertex", "gemini-2.5-flash"),
        ("llama-4-scout-together", "together", "meta-llama/Llama-4-Scout-17B-16E-Instruct"),
        ("muse-spark-1.2", "meta", "muse-spark-1.2"),
    ],
)
def test_models_of_older_names(name: str, provider: str, wire_name: str) -> None:
    row = registry.find_model(name)
    assert (row.provider, row.name) == (provider, wire_name)
