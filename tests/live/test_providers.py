"""Real calls, for whoever has keys: `make live` asks every provider whose key is set, and prints what works."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from live.checks import CHECKS, run_checks
from lm_deluge.api_requests.credentials import has_key
from lm_deluge.models.registry import list_models, list_providers
from lm_deluge.models.rows import ProviderRow

pytestmark = pytest.mark.live
CHOSEN: dict[str, str] = tomllib.loads((Path(__file__).parent / "models.toml").read_text("utf-8"))
RESULTS: dict[str, dict[str, tuple[bool | None, str]]] = {}


def model_of(provider: str) -> str | None:
    """Return the name of a model to ask: the one that is written down, else the cheapest."""
    if provider in CHOSEN:
        return f"{provider}:{CHOSEN[provider]}"
    priced = [row for row in list_models(provider=provider) if row.price is not None]
    cheapest = min(priced, key=lambda row: row.price.input + row.price.output, default=None)
    return None if cheapest is None else cheapest.id


def is_set_up(row: ProviderRow) -> bool:
    """Whether the environment says that this provider is to be asked: by a key, or by what stands for one."""
    stand_ins = {
        "sigv4": ("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
        "google": ("GOOGLE_CLOUD_PROJECT",),
    }.get(row.auth)
    return has_key(row) if stand_ins is None else any(os.environ.get(name) for name in stand_ins)


def models_to_ask() -> list[str]:
    asked = os.environ.get("DELUGE_LIVE_MODEL")
    if asked:
        return asked.split(",")
    found = (model_of(row.id) for row in list_providers() if is_set_up(row))
    return [model for model in found if model is not None]


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    grid = Table("model", *CHECKS, title="What works, asked just now")
    for model, results in RESULTS.items():
        signs = {True: "[green]yes", False: "[red]NO", None: "[dim]-"}
        grid.add_row(model, *(signs[results[name][0]] for name in CHECKS))
    console = Console()
    console.print()
    console.print(grid if RESULTS else "No provider's key is set: nothing was asked.")
    for model, results in RESULTS.items():
        for name, (works, word) in results.items():
            console.print(f"  {model} {name}: {'ok, ' if works else ''}{word}", style="dim", markup=False)


@pytest.mark.timeout(600)
async def test_what_works() -> None:
    for model in models_to_ask():
        RESULTS[model] = await run_checks(model)
    failed = {model: [name for name, (works, _) in found.items() if works is False] for model, found in RESULTS.items()}
    assert not any(failed.values()), failed
