"""The registry's data for OpenAI's chat models."""

from __future__ import annotations

import re
from importlib import resources

import msgspec
import pytest

from lm_deluge.models import registry
from lm_deluge.models.rows import ModelRow
from lm_deluge.models.snapshots import read_snapshot

TEXT = resources.files("lm_deluge.models").joinpath("models.json").read_text("utf-8")
ROWS = [row for row in read_snapshot(TEXT.encode()).rows() if row.provider == "openai"]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


@pytest.mark.parametrize(
    "name",
    [
        *("gpt-3.5-turbo", "gpt-4", "gpt-4-turbo", "gpt-4o", "gpt-4o-mini", "gpt-4o-2024-08-06"),
        *("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "chatgpt-4o-latest", "o1", "o3", "o3-mini", "o4-mini"),
        *("gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5.1", "gpt-5.2", "gpt-6-sol"),
    ],
)
def test_the_well_known_models_are_there(name: str) -> None:
    assert registry.find_model(name).provider == "openai"


@each_row
def test_the_provider_exists_and_knows_the_model_by_its_own_id(row: ModelRow) -> None:
    assert registry.find_provider(row.provider).id == "openai"
    assert row.name == row.id


@each_row
def test_the_price_is_sane(row: ModelRow) -> None:
    price = row.price
    assert price is not None
    assert 0 < price.input <= price.output * 1.0001 < 1000
    assert price.cache_read is None or 0 < price.cache_read <= price.input
    assert price.cache_write is None or price.input <= price.cache_write <= 2 * price.input


@each_row
def test_longer_requests_cost_more(row: ModelRow) -> None:
    assert row.price is not None
    starts = [tier.above_input_tokens for tier in row.price.tiers]
    assert starts == sorted(set(starts))
    for tier in row.price.tiers:
        assert 0 < tier.above_input_tokens < (row.context_window or 0)
        for name in ("input", "output", "cache_read", "cache_write"):
            base, raised = getattr(row.price, name), getattr(tier, name)
            assert (base is None) is (raised is None)
            assert base is None or raised > base


def test_how_a_request_is_served_has_its_price() -> None:
    price = next(row.price for row in ROWS if row.id == "gpt-5")
    assert price is not None
    assert {"batch", "flex", "priority"} <= set(price.modes)
    assert price.modes["batch"].input == price.modes["flex"].input == price.input / 2
    assert price.modes["priority"].input > price.input


@each_row
def test_the_limits_are_sane(row: ModelRow) -> None:
    if row.id in {"chat-latest", "gpt-5-search-api"}:
        return  # no source knows them
    assert row.context_window is not None
    assert row.max_output_tokens is not None
    assert 1024 <= row.max_output_tokens <= row.context_window <= 2_000_000


@each_row
def test_models_that_only_responses_or_another_endpoint_takes_are_absent(row: ModelRow) -> None:
    elsewhere = r"-pro\b|codex|deep-research|computer-use|realtime|embedding|image|tts|whisper|transcribe|instruct"
    assert not re.search(elsewhere, row.id)


@each_row
def test_models_that_always_reason_take_no_sampling(row: ModelRow) -> None:
    if re.match(r"o\d|gpt-[5-9]", row.id) and not row.id.endswith("-chat-latest"):
        able = row.capabilities
        assert able.reasoning
        # Models that can turn reasoning off take these parameters then.
        expected = "without_reasoning" if "none" in able.reasoning_efforts else False
        assert (able.sampling, able.logprobs, able.stop) == (expected, expected, False)


@each_row
def test_a_snapshot_is_like_its_alias(row: ModelRow) -> None:
    alias = re.sub(r"-\d{4}-\d\d-\d\d$", "", row.id)
    if row.id in {alias, "gpt-4o-2024-05-13"}:
        return
    expected = registry.find_model(alias)
    lifecycle = {name: getattr(expected, name) for name in ("status", "retires", "successor")}
    assert msgspec.structs.replace(row, id=alias, name=alias, **lifecycle) == expected


def test_capabilities_that_callers_meet() -> None:
    takes = {row.id: row.capabilities for row in ROWS}
    assert takes["gpt-3.5-turbo"].tools
    assert not takes["gpt-3.5-turbo"].image_input
    assert takes["gpt-4-turbo"].image_input
    assert not takes["gpt-4-turbo"].json_schema
    assert not takes["gpt-4o-2024-05-13"].json_schema
    assert takes["gpt-4o-2024-08-06"].json_schema
    assert takes["gpt-4o"].file_input
    assert not takes["gpt-4o"].audio_input
    assert takes["gpt-4o-audio-preview"].audio_input
    assert not takes["gpt-4o-search-preview"].sampling
    assert takes["gpt-5-chat-latest"].sampling
    assert takes["gpt-5"].file_input
    assert not takes["o3-mini"].image_input


def test_prices_that_are_known_by_heart() -> None:
    prices = {row.id: row.price for row in ROWS}
    four, mini = prices["gpt-4o"], prices["gpt-4o-mini"]
    assert four is not None
    assert mini is not None
    assert (four.input, four.cache_read, four.output) == (2.5, 1.25, 10.0)
    assert (mini.input, mini.cache_read, mini.output) == (0.15, 0.075, 0.6)
