"""The rules by which `make models` chooses and completes prices."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from lm_deluge.models.rows import ModelRow
from lm_deluge.usage import Price, PriceChange, PriceTier, Usage

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts"))
from model_sources.corrections import corrections
from model_sources.files import describe_changes, models_json
from model_sources.listing import find_price
from model_sources.litellm import read_litellm
from model_sources.modes import complete_price, share_modes, with_modes
from model_sources.packages import open_package

CHEAP, DEAR, DEAREST = (Price(input=each, output=each * 5) for each in (1.0, 1.1, 1.2))


def test_where_no_two_sources_agree_the_dearest_price_of_a_region_holds() -> None:
    assert find_price([DEAR, DEAREST, None], is_regional=True) == DEAREST
    assert find_price([DEAREST, CHEAP, DEAR], is_regional=True) == DEAREST
    assert find_price([CHEAP, DEAREST, CHEAP], is_regional=True) == CHEAP
    assert find_price([DEAREST, CHEAP, CHEAP], is_regional=True) == CHEAP
    assert find_price([DEAR, DEAREST, None]) == DEAR


def test_a_newer_first_source_is_not_outvoted() -> None:
    assert find_price([DEAREST, CHEAP, CHEAP], is_newest_first=True) == DEAREST


def test_a_tier_of_service_is_a_multiple_of_all_rates() -> None:
    tiers = (PriceTier(above_input_tokens=100, input=2.0, cache_read=0.2),)
    price = with_modes(Price(input=1.0, output=5.0, cache_read=0.1, tiers=tiers), {"flex": 0.5})
    flex = price.modes["flex"]
    assert (flex.input, flex.output, flex.cache_read, flex.cache_write) == (0.5, 2.5, 0.05, None)
    assert flex.tiers == (PriceTier(above_input_tokens=100, input=1.0, cache_read=0.1),)


def test_whole_numbers_are_prices_too() -> None:
    assert with_modes(Price(input=3, output=15), {"flex": 0.5}).modes["flex"] == Price(input=1.5, output=7.5)


def test_an_announced_factor_changes_that_tier_only() -> None:
    later = [{"start": "2030-01-01", "factors": {"ultrafast": 6.0}}]
    price = with_modes(CHEAP, {"batch": 0.5, "ultrafast": 3.0}, later)
    before, after = price.on("2029-12-31"), price.on("2030-01-01")
    assert (before.modes["ultrafast"].input, after.modes["ultrafast"].input) == (3.0, 6.0)
    assert before.modes["batch"] == after.modes["batch"]


def test_a_model_has_its_tiers_in_all_regions_of_a_company() -> None:
    price = with_modes(Price(input=1.0, output=4.0), {"flex": 0.5, "priority": 1.75})
    rows = [
        ModelRow(id="a", name="us.amazon.nova-9-v1:0", provider="bedrock", price=price),
        ModelRow(id="b", name="eu.amazon.nova-9-v1:0", provider="bedrock", price=Price(input=2.0, output=8.0)),
        ModelRow(id="c", name="amazon.nova-9-v1:0", provider="bedrock", price=CHEAP, status="retired"),
        ModelRow(id="d", name="nova-9", provider="openrouter", price=CHEAP),
        ModelRow(id="e", name="amazon.nova-9-lite-v1:0", provider="bedrock", price=CHEAP),
    ]
    found = {row.id: row.price.modes for row in share_modes(rows) if row.price is not None}
    assert (found["b"]["flex"].input, found["b"]["priority"].output) == (1.0, 14.0)
    assert (found["c"], found["d"], found["e"]) == ({}, {}, {})


def test_long_cache_writes_cost_the_same_multiple_in_tiers_and_modes() -> None:
    tier = PriceTier(above_input_tokens=100, input=2.0, cache_write=2.5)
    fast = Price(input=2.0, output=10.0, cache_write=2.5, tiers=(tier,))
    price = complete_price(
        Price(input=1.0, output=5.0, cache_write=1.25, cache_write_12h=2.5, tiers=(tier,), modes={"fast": fast})
    )
    assert price.tiers[0].cache_write_12h == 5.0
    assert price.modes["fast"].cache_write_12h == 5.0
    assert price.modes["fast"].tiers[0].cache_write_12h == 5.0
    written = Usage(input_tokens=1000, cache_write_tokens=1000, cache_write_12h_tokens=1000)
    assert price.cost(written, "fast") == pytest.approx(0.005)
    assert complete_price(CHEAP) == CHEAP


def test_a_change_keeps_the_factors_of_regions() -> None:
    change = PriceChange(start="2030-01-01", price=DEAR)
    price = Price(input=1.0, output=5.0, region_factors={"regional": 1.1}, changes=(change,))
    assert complete_price(price).on("2030-01-01").region_factors == {"regional": 1.1}


def test_litellm_prices_by_length_region_and_reasoning(tmp_path: Path) -> None:
    entry = {
        "litellm_provider": "dashscope",
        "mode": "chat",
        "regional_endpoint_uplift_multiplier": 1.1,
        "tiered_pricing": [
            {"range": [32e3, 128e3], "input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6},
            {
                "range": [0, 32e3],
                "input_cost_per_token": 1e-6,
                "output_cost_per_token": 4e-6,
                "output_cost_per_reasoning_token": 9e-6,
            },
        ],
    }
    wheel = tmp_path / "litellm-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("litellm-1.dist-info/METADATA", "Name: litellm\nVersion: 1\n")
        archive.writestr("litellm/model_prices_and_context_window_backup.json", json.dumps({"dashscope/qwen-x": entry}))
    price = read_litellm(open_package(wheel))["dashscope"]["qwen-x"].price
    assert price == Price(
        input=1.0,
        output=4.0,
        reasoning=9.0,
        tiers=(PriceTier(above_input_tokens=32000, input=2.0, output=8.0),),
        region_factors={"regional": 1.1},
    )


def test_the_differences_name_prices_first() -> None:
    from datetime import date

    from lm_deluge.models.snapshots import read_snapshot

    def rows(price: Price, window: int, *names: str) -> list[ModelRow]:
        known = ModelRow(id="kept", name="kept", provider="openai", price=price, context_window=window)
        return [known, *(ModelRow(id=name, name=name, provider="openai") for name in names)]

    before = read_snapshot(models_json(rows(CHEAP, 10, "old"), date(2030, 1, 1)).encode())
    assert list(describe_changes(before, rows(DEAR, 20, "new"))) == [
        "== prices: 1",
        "kept: 1/5 (cached -) -> 1.1/5.5 (cached -)",
        "== new models: 1",
        "new: no price",
        "== models that left: 1",
        "old",
        "== other fields: 1",
        "kept: context_window 10 -> 20",
    ]
    assert set(describe_changes(before, before.rows())) == {
        "== prices: 0",
        "== new models: 0",
        "== models that left: 0",
        "== other fields: 0",
    }


def test_corrections_by_hand_apply_in_order() -> None:
    found = corrections("openai", "gpt-6.2-sol")
    assert found["factors"]["ultrafast"] == 3.0
    assert found["context_window"] == 1_050_000
    assert corrections("openai", "no-such-model") == {"capabilities": {}}
