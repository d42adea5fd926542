"""Invariants of the rows of all providers."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib import resources
from urllib.parse import urlsplit

import msgspec
import pytest

from lm_deluge.adapters.catalog import adapter_names
from lm_deluge.config import SamplingParams
from lm_deluge.models.rows import ProviderRow

TABLES = tomllib.loads(resources.files("lm_deluge.models").joinpath("providers.toml").read_text("utf-8"))
ROWS = [msgspec.convert({"id": name, **table}, ProviderRow) for name, table in TABLES.items()]
BY_ID = {row.id: row for row in ROWS}
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)

OUR_OWN = {"openai-compatible", "simulator"}
LOCAL = {"ollama", "ollama-openai", "vllm", "llamacpp", "lmstudio", "sglang", "tgi", "litellm"}
APIS = {
    "openai-chat",
    "openai-responses",
    "anthropic-messages",
    "gemini-generate",
    "gemini-interactions",
    "bedrock-converse",
    "bedrock-invoke",
    "cohere-v2",
    "mistral-chat",
    "ollama-chat",
}
NOT_PARAMETERS = {"tools", "output", "name"}


@each_row
def test_the_id_can_stand_before_a_colon(row: ProviderRow) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]*", row.id)
    assert row.otel_name


@each_row
def test_its_api_is_one_of_the_ten(row: ProviderRow) -> None:
    assert row.adapter in APIS | set(adapter_names())


@each_row
def test_its_address_is_one_and_safe(row: ProviderRow) -> None:
    if row.id in OUR_OWN:
        assert row.base_url == ""
        return
    parts = urlsplit(re.sub(r"\{\w+\}", "place", row.base_url))
    assert parts.scheme == ("http" if row.id in LOCAL else "https")
    assert (parts.hostname == "localhost") is (row.id in LOCAL)
    assert (parts.query, parts.fragment, parts.username) == ("", "", None)
    assert not row.base_url.endswith("/")


@each_row
def test_every_place_of_the_address_is_explained(row: ProviderRow) -> None:
    named = re.findall(r"\{(\w+)\}", row.base_url + "".join(place.default for place in row.places.values()))
    assert set(named) <= set(row.places)
    for name, place in row.places.items():
        assert place.env or place.of or place.default, name
        assert not place.of or place.of in row.places


@each_row
def test_paths_begin_with_a_slash(row: ProviderRow) -> None:
    assert all(path.startswith("/") for path in (row.path, row.stream_path) if path)
    assert not row.stream_path or row.path


@each_row
def test_it_says_where_a_key_comes_from_and_how_it_travels(row: ProviderRow) -> None:
    if row.auth in ("bearer", "optional", "none", "header"):
        assert bool(row.key_header) is (row.auth == "header")
    if row.id in OUR_OWN | LOCAL:
        assert not row.key_env or row.auth == "optional"
    elif row.auth in ("bearer", "header"):
        assert row.key_env


@each_row
def test_variables_have_proper_names_and_one_purpose(row: ProviderRow) -> None:
    places = [name for place in row.places.values() for name in place.env]
    names = [*row.base_url_env, *row.key_env, *places]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", name) for name in names)
    assert max(Counter(names).values(), default=1) == 1


@each_row
def test_tokens_are_among_the_keys_of_a_provider_with_a_header_for_keys(row: ProviderRow) -> None:
    assert set(row.bearer_env) <= set(row.key_env)
    assert not row.bearer_env or row.auth == "header"


def test_a_variable_is_a_key_or_an_address_and_never_both() -> None:
    keys = {name for row in ROWS for name in row.key_env}
    addresses = {name for row in ROWS for name in row.address_env}
    assert keys & addresses == set()


def test_a_key_is_sent_to_its_own_host_only() -> None:
    """Two rows with the same key are two APIs, or two endpoints, of one company."""
    owners: dict[str, set[str]] = {}
    for row in ROWS:
        for name in row.key_env:
            owners.setdefault(name, set()).add(row.id.partition("-")[0])
    families = [{"gemini", "vertex"}, {"ollama", "bedrock"}]
    assert [name for name, ids in owners.items() if len(ids) > 1 and not any(ids <= each for each in families)] == []


@each_row
def test_headers_are_lower_case_and_hold_no_key(row: ProviderRow) -> None:
    assert all(name == name.lower() and "auth" not in name and "key" not in name for name in row.headers)


@each_row
def test_its_quirks_make_sense(row: ProviderRow) -> None:
    quirks = row.quirks
    assert set(quirks.rejects) <= {*SamplingParams.__struct_fields__, *NOT_PARAMETERS}
    assert len(set(quirks.rejects)) == len(quirks.rejects)
    if quirks.reasoning_field == "content":
        assert quirks.think_tags
    if "reasoning_effort" in quirks.rejects:
        assert quirks.effort_field == "reasoning_effort"


def test_no_row_has_fields_that_nothing_reads() -> None:
    for name, table in TABLES.items():
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.convert({"id": name, **table, "typo": 1}, ProviderRow)


@pytest.mark.parametrize(
    ("name", "url", "variable"),
    [
        ("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        ("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
        ("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY"),
        ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("azure", "https://{resource}.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY"),
        ("together", "https://api.together.ai/v1", "TOGETHER_API_KEY"),
        ("baseten", "https://inference.baseten.co/v1", "BASETEN_API_KEY"),
        ("novita", "https://api.novita.ai/openai/v1", "NOVITA_API_KEY"),
        ("vercel", "https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY"),
        ("meta", "https://api.meta.ai/v1", "META_API_KEY"),
        ("xiaomi", "https://api.xiaomimimo.com/v1", "XIAOMI_API_KEY"),
        ("siliconflow", "https://api.siliconflow.com/v1", "SILICONFLOW_API_KEY"),
        ("scaleway", "https://api.scaleway.ai/v1", "SCW_SECRET_KEY"),
        ("friendli", "https://api.friendli.ai/serverless/v1", "FRIENDLI_TOKEN"),
        ("alibaba", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    ],
)
def test_hosts_that_are_known_by_heart(name: str, url: str, variable: str) -> None:
    assert (BY_ID[name].base_url, BY_ID[name].key_env[0]) == (url, variable)
