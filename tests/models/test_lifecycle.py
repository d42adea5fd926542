"""Models that end, prices that change on a day, and names in the makers' own clients."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec
import pytest

from lm_deluge import LLMClient
from lm_deluge.api_requests.request import build_call
from lm_deluge.client import end_warnings
from lm_deluge.errors import UnknownModelError
from lm_deluge.models import registry
from lm_deluge.models.costs import check_prices, endpoint_region, request_cost
from lm_deluge.models.lifecycle import LaterModelEndWarning, ModelEndWarning, end_notice, ends_soon
from lm_deluge.models.rows import ModelRow
from lm_deluge.usage import Price, PriceChange, Usage

ROOT = Path(__file__).parent.parent.parent
PRICE = Price(
    input=1.0,
    output=2.0,
    changes=(
        PriceChange(start="2030-01-01", price=Price(input=3.0, output=4.0)),
        PriceChange(start="2031-01-01", price=Price(input=5.0, output=6.0)),
    ),
)
MILLION = Usage(input_tokens=1_000_000)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    registry._registry.cache_clear()
    end_warnings._warned.clear()
    yield
    registry._registry.cache_clear()
    end_warnings._warned.clear()


@pytest.mark.parametrize(
    ("day", "cost"),
    [("2029-12-31", 1.0), ("2030-01-01", 3.0), ("2030-12-31", 3.0), ("2031-01-01", 5.0), ("2040-01-01", 5.0)],
)
def test_the_price_is_that_of_the_day(day: str, cost: float) -> None:
    row = ModelRow(id="m", name="m", provider="openai", price=PRICE)
    provider = registry.find_provider("openai")
    assert request_cost(row, provider, MILLION, now=day) == cost
    assert request_cost(row.on(day), provider, MILLION) == cost


def test_a_price_without_a_change_stays_the_same_object() -> None:
    assert PRICE.on("2029-12-31") is PRICE
    row = ModelRow(id="m", name="m", provider="openai", price=PRICE)
    assert row.on("2029-12-31") is row
    assert PRICE.on("2030-06-01").changes == PRICE.changes[1:]


@pytest.mark.parametrize(
    ("name", "day", "rates"),
    [
        ("gemini-4-argon", "2026-11-30", (2.0, 10.0, 0.1)),
        ("gemini-4-argon", "2026-12-01", (4.0, 20.0, 0.2)),
        ("vertex:gemini-4-carbon", "2026-12-01", (4.0, 20.0, 0.2)),
        ("gemini-3.8-flash", "2026-12-31", (0.75, 3.75, 0.075)),
        ("gemini-3.8-flash", "2027-01-01", (1.5, 7.5, 0.15)),
        ("gemini-flash-latest", "2027-01-01", (1.5, 7.5, 0.15)),
        ("vertex:gemini-3.6-flash", "2027-01-01", (1.5, 7.5, 0.15)),
        ("gemini-robotics-er-2-preview", "2027-01-01", (2.0, 10.0, 0.2)),
    ],
)
def test_announced_prices_are_in_the_rows(name: str, day: str, rates: tuple[float, ...]) -> None:
    price = registry.find_model(name).price
    # A later snapshot has the new price as its present one, and no change.
    present = registry.snapshot_date()
    if price is None or day < present:
        return
    found = price.on(day)
    assert (found.input, found.output, found.cache_read) == rates


def test_a_call_has_the_price_of_its_day() -> None:
    changes = (PriceChange(start="2001-01-01", price=Price(input=9.0, output=9.0)),)
    old = Price(input=1.0, output=1.0, changes=changes)
    registry.register_model(ModelRow(id="mine", name="mine", provider="openai-compatible", price=old))
    call = build_call(registry.find_model("mine"), "Hi", base_url="http://127.0.0.1:9/v1")
    assert call.model.price == Price(input=9.0, output=9.0)


def test_a_price_of_a_change_is_checked_too() -> None:
    bad = Price(input=1.0, output=1.0, changes=(PriceChange(start="2030-01-01", price=Price(input=-1.0, output=1.0)),))
    with pytest.raises(Exception, match="not an amount of money"):
        check_prices(ModelRow(id="m", name="m", provider="openai", price=bad))


@pytest.mark.parametrize(
    ("names", "rates"),
    [
        ("deepseek-flash deepseek-v4-flash", (0.3, 1.2, 0.006)),  # the higher prices of the day
        ("deepseek-v4-pro", (1.32, 3.96, 0.044)),
        ("azure:deepseek-r1", (1.35, 5.4, None)),
        ("azure:deepseek-v4-pro", (1.74, 3.48, 0.145)),
        ("azure:deepseek-v3.2", (0.58, 1.68, None)),
        ("azure:grok-4-20-reasoning azure:grok-4-20-non-reasoning", (1.25, 2.5, None)),
        ("mistral-large-latest", (0.7, 2.1, 0.07)),
        ("mistral-medium magistral-medium-latest", (1.5, 7.5, 0.15)),
        ("grok-4-fast grok-4-1-fast grok-4 grok-3-latest", (1.25, 2.5, 0.2)),
        ("grok-code-fast-1", (1.0, 2.0, 0.2)),
        ("grok-latest", (2.0, 6.0, 0.5)),
        ("vertex-anthropic:claude-opus-5-5 vertex-anthropic:claude-opus-5-5@default", (4.0, 20.0, 0.2)),
        ("gpt-6.2-sol azure:gpt-6.2-sol", (2.0, 10.0, 0.1)),
        ("gpt-6.2-astra", (8.0, 40.0, 0.4)),
        ("gemini-4-hydrogen", (1.5, 7.5, 0.075)),
        ("openrouter:~openai/gpt-astra-latest", (8.0, 40.0, 0.4)),
        ("gpt-5.3-codex-spark", (1.75, 14.0, 0.175)),
        ("qwen3-next-80b-a3b-instruct", (0.15, 1.2, None)),
    ],
)
def test_prices_that_were_wrong(names: str, rates: tuple[float | None, ...]) -> None:
    for name in names.split():
        price = registry.find_model(name).price
        assert price is not None
        assert (price.input, price.output, price.cache_read) == rates, name


@pytest.mark.parametrize(
    ("name", "mode", "factor"),
    [
        ("gemini-3.5-flash", "flex", 0.5),
        ("gemini-3.5-flash", "priority", 1.8),
        ("vertex:gemini-3.8-flash", "flex", 0.5),
        ("bedrock:amazon.nova-pro-v1:0", "flex", 0.5),
        ("bedrock:amazon.nova-pro-v1:0", "priority", 1.75),
        ("bedrock:deepseek.v3.2", "flex", 0.5),
        ("gpt-6-sol", "flex", 0.5),
        ("gpt-6-astra", "ultrafast", 6.0),
        ("claude-opus-5-5", "fast", 2.0),
        ("gpt-6.2-sol", "batch", 0.5),
    ],
)
def test_tiers_of_service(name: str, mode: str, factor: float) -> None:
    price = registry.find_model(name).price
    assert price is not None
    usage = Usage(input_tokens=1000, output_tokens=100)
    other = price.batch_cost(usage) if mode == "batch" else price.cost(usage, mode)
    assert other == pytest.approx(factor * price.cost(usage), rel=0.01)


def test_regions_cost_more() -> None:
    model, provider = registry.find_model("gpt-6-sol"), registry.find_provider("openai")
    plain = request_cost(model, provider, MILLION)
    assert plain is not None
    region = endpoint_region("https://eu.api.openai.com/v1")
    assert request_cost(model, provider, MILLION, region=region) == pytest.approx(1.1 * plain)
    assert request_cost(model, provider, MILLION, region=endpoint_region("https://api.openai.com/v1")) == plain
    assert endpoint_region("https://eu.api.openai.com.evil.test/v1") is None
    old = registry.find_model("gpt-4o")
    assert request_cost(old, provider, MILLION, region="eu") == request_cost(old, provider, MILLION)
    claude, anthropic = registry.find_model("claude-opus-5-5"), registry.find_provider("anthropic")
    us = msgspec.structs.replace(MILLION, region="us")
    assert request_cost(claude, anthropic, us) == pytest.approx(4.4)


def test_cache_writes_of_long_life_cost_more() -> None:
    price = registry.find_model("gpt-6-sol").price
    assert price is not None
    writes = {"input_tokens": 100_000, "cache_write_tokens": 100_000}
    short, long = Usage(**writes), Usage(**writes, cache_write_12h_tokens=100_000)
    assert price.cost(long) == pytest.approx(2 * price.cost(short))


@pytest.mark.parametrize(
    ("status", "retires", "day", "expected"),
    [
        (None, None, "2030-01-01", None),
        ("deprecated", None, "2030-01-01", "m is deprecated: its provider ends it on a day that is not announced."),
        ("deprecated", "2031-05-01", "2031-04-30", "m is deprecated: its provider ends it on 2031-05-01."),
        ("deprecated", "2031-05-01", "2031-05-01", "m is retired: its provider ended it on 2031-05-01."),
        (None, "2031-05-01", "2030-01-01", None),
        (None, "2031-05-01", "2032-01-01", "m is retired: its provider ended it on 2031-05-01."),
        ("retired", None, "2030-01-01", "m is retired: its provider ended it."),
        ("beta", None, "2030-01-01", None),
    ],
)
def test_the_notice_of_an_end(status: str | None, retires: str | None, day: str, expected: str | None) -> None:
    row = ModelRow(id="m", name="m", provider="openai", status=status, retires=retires)  # type: ignore[arg-type]
    assert end_notice(row, day) == expected


def test_the_notice_names_the_successor() -> None:
    row = ModelRow(id="m", name="m", provider="openai", status="retired", successor="n")
    assert end_notice(row, "2030-01-01") == "m is retired: its provider ended it. Take n instead."


def test_a_client_warns_once_of_each_model_that_has_ended() -> None:
    for name in ("old", "older"):
        row = ModelRow(id=name, name=name, provider="openai-compatible", retires="2001-01-01")
        registry.register_model(row)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        LLMClient("old", base_url="http://127.0.0.1:9/v1")
        LLMClient(["old", "older"], base_url="http://127.0.0.1:9/v1")
        LLMClient("gpt-6.2-sol", fallback="old", base_url="http://127.0.0.1:9/v1")
    kinds = [(each.category, str(each.message).partition(" is")[0], each.filename) for each in given]
    assert kinds == [(ModelEndWarning, "old", __file__), (ModelEndWarning, "older", __file__)]


@pytest.mark.parametrize(("retires", "is_shown"), [("2026-12-30", True), ("2026-12-31", False), (None, True)])
def test_only_an_end_within_thirty_days_is_shown_by_default(retires: str | None, *, is_shown: bool) -> None:
    row = ModelRow(id="m", name="m", provider="openai-compatible", status="deprecated", retires=retires)
    assert ends_soon(row, "2026-11-30") is is_shown


def test_a_later_end_is_a_pending_deprecation() -> None:
    row = ModelRow(id="late", name="m", provider="openai-compatible", status="deprecated", retires="9999-01-01")
    registry.register_model(row)
    with pytest.warns(ModelEndWarning) as given:
        LLMClient("late", base_url="http://127.0.0.1:9/v1")
    assert [each.category for each in given] == [LaterModelEndWarning]
    assert issubclass(LaterModelEndWarning, PendingDeprecationWarning)


def test_the_warning_ends_no_program() -> None:
    """Under `-W error` too: else programs would fail on the day on which an end is announced."""
    registry.register_model(ModelRow(id="old", name="old", provider="openai-compatible", retires="2001-01-01"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LLMClient("old", base_url="http://127.0.0.1:9/v1").models[0].id == "old"


# The wrong status of a model that still answers costs a warning; of one that does not, a failed request.
@pytest.mark.parametrize(
    ("names", "retires"),
    [
        ("gpt-4 gpt-4-0613 gpt-3.5-turbo o1 o1-pro o3-mini o4-mini gpt-4.1-nano gpt-4o-2024-05-13", "2026-10-23"),
        ("gpt-5-chat-latest gpt-5-codex gpt-5.1-codex gpt-4o-search-preview", "2026-07-23"),
        ("gpt-5 gpt-5-mini gpt-5-nano gpt-5-pro o3 o3-pro", "2026-12-11"),
        ("gpt-4o gpt-4o-mini gpt-4.1 gpt-4.1-mini", "2027-01-14"),
        ("deepseek-chat deepseek-reasoner", "2026-07-24"),
        ("claude-sonnet-4-5 claude-sonnet-4-5-20250929", "2026-11-30"),
        ("claude-opus-4-5", "2027-01-22"),
        ("gemini-2.5-pro gemini-2.5-flash", "2026-12-01"),
        ("vertex:gemini-2.5-pro vertex:gemini-2.5-flash", "2026-10-20"),
        ("groq:llama-3.3-70b-versatile groq:llama-3.1-8b-instant", "2026-08-16"),
        ("grok-3 grok-4-fast grok-4-1-fast-reasoning grok-code-fast-1", "2026-05-15"),
        ("claude-sonnet-4-20250514 claude-opus-4-20250514", "2026-06-15"),
    ],
)
def test_ends_that_are_known(names: str, retires: str) -> None:
    found = {name: registry.find_model(name) for name in names.split()}
    assert {name: row.retires for name, row in found.items()} == dict.fromkeys(found, retires)
    assert {row.status_on(retires) for row in found.values()} == {"retired"}


def test_rows_agree_with_themselves_on_the_day_of_the_data() -> None:
    day = registry.snapshot_date()
    for row in registry.list_models():
        assert row.retires is None or re.fullmatch(r"20\d\d-\d\d-\d\d", row.retires), row.id
        if row.retires is not None and row.retires <= day:
            assert row.status == "retired", row.id


@pytest.mark.parametrize(
    "name",
    [
        *("gpt-6.2-sol", "gpt-6.2-astra", "gpt-6.2-astra-law", "gpt-daybreak-red-latest", "gpt-6-astra-law"),
        *("gemini-4-hydrogen", "gemini-4-carbon", "gemini-4-neon", "gemini-omni-1.2-flash"),
        *("mistral-large-4", "mistral-large-3", "mistral-medium-3", "magistral-small-latest", "ministral-14b-latest"),
        *("mistral-small", "mistral-tiny", "mistral-code-latest", "grok-4.20-reasoning", "grok-4.20-non-reasoning"),
        *("grok-build-latest", "claude-mythos-5", "claude-mythos-5-1", "claude-opus-4-6-20260205"),
        *("groq:qwen/qwen3.8-27b", "together:zai-org/GLM-5.3", "bedrock:us.openai.gpt-6-astra"),
        *("azure:gpt-6-astra", "azure:gpt-5.5-pro", "azure:gpt-5.3-codex", "vertex:gemini-4-hydrogen"),
        *("vertex-anthropic:claude-haiku-5-5", "sambanova:gpt-oss-120b"),
    ],
)
def test_names_that_were_missing(name: str) -> None:
    row = registry.find_model(name)
    assert row.capabilities.reasoning is not None
    assert row.context_window is not None or name.endswith("-law")


@pytest.mark.parametrize(
    "name", ["claude-opus-5-latest", "gpt-5.5-codex", "gemini-2.5-flash-latest", "mixtral-8x22b-instruct"]
)
def test_names_that_nobody_serves_are_no_rows(name: str) -> None:
    assert name not in {row.id for row in registry.list_models()}


def _names_of(package: str, member: str) -> set[str]:
    """Return the texts in `Literal[...]` of a file of an installed package, which is not imported."""
    file = metadata.distribution(package).locate_file(member)
    tree = ast.parse(Path(str(file)).read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            found |= {each.value for each in ast.walk(node.slice) if isinstance(each, ast.Constant)}
    return found


# "Not a supported model ID. Retained for SDK compatibility." (openai 3.57); another endpoint.
NO_CHAT_MODELS = {"gpt-5.1-mini", "computer-use-preview", "computer-use-preview-2025-03-11", "codex-mini-latest"}


@pytest.mark.parametrize(
    ("package", "member"),
    [
        ("openai", "openai/types/shared/chat_model.py"),
        ("openai", "openai/types/shared/all_models.py"),
        ("anthropic", "anthropic/types/model_param.py"),
    ],
)
def test_every_model_of_the_makers_own_clients_has_a_row(package: str, member: str) -> None:
    names = _names_of(package, member)
    ids = {row.id for row in registry.list_models()}
    assert len(names) > 15
    assert names - NO_CHAT_MODELS - ids == set()


def _text_of(file: Path) -> str:
    return file.read_text("utf-8")


def _shown_models() -> Iterator[tuple[str, str]]:
    """Yield file and name of each model in README, documentation, examples and hints."""
    known = {row.id for row in registry.list_models()} - {"simulator"}
    word = re.compile(r"[\w~@./:+-]*\w")
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.py")]
    for file in files:
        if file.parent.name == "models" and file.suffix == ".py" and file.name == "names.py":
            continue  # it has the names of an older version on purpose
        for found in word.findall(_text_of(file)):
            if found in known:
                yield str(file.relative_to(ROOT)), found


def test_no_model_that_has_ended_is_named_to_users() -> None:
    ended = {row.id for row in registry.list_models() if row.status == "retired"}
    shown = set(_shown_models())
    assert len(shown) > 20
    assert sorted((file, name) for file, name in shown if name in ended) == []


def test_the_names_of_an_unknown_provider_stay_unknown() -> None:
    with pytest.raises(UnknownModelError):
        registry.find_model("acme:gpt-6-sol")
