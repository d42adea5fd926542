"""Generate parts of the documentation from the code: tables of fields, events, faults and providers, and the layers.

`python scripts/refresh_docs.py` rewrites the pages. The tests compare each page with the result of `refreshed`.
"""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import msgspec

from lm_deluge import config, errors, events, response, usage
from lm_deluge.agents import options
from lm_deluge.models import rows
from lm_deluge.prompt import tool
from lm_deluge.simulator.faults.catalog import FAULTS, Fault
from provider_features import HEADS, feature_lines

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_MARK = re.compile(r"(<!-- (table|fields|layers)(?:: (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)
_ATTRIBUTE = re.compile(r"^    ([a-z0-9_, ]+): (.*(?:\n        .*)*)", re.MULTILINE)
_MODULES = (config, errors, events, response, usage, rows, tool, options)


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    heads = list(head)
    written = [heads, ["---"] * len(heads), *map(list, lines)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in written)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"`{value:_}`"
    if isinstance(value, msgspec.Struct):
        return f"`{type(value).__name__}()`"
    return f"`{value!r}`"


def _attributes(kind: type) -> dict[str, str]:
    """Return the description of each attribute from the docstring of a class."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = {}
    for names, text in _ATTRIBUTE.findall(section):
        for name in names.split(","):
            found[name.strip()] = " ".join(text.split())
    return found


def _defaults(kind: type) -> dict[str, str]:
    if not issubclass(kind, msgspec.Struct):
        return {}
    fields = msgspec.structs.fields(kind)
    return {
        field.name: "required"
        if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        else _shown(field.default if field.default is not msgspec.NODEFAULT else field.default_factory())
        for field in fields
    }


def fields_table(name: str) -> str:
    """Return the table of the fields of a class, with the descriptions of its docstring."""
    kind = next(getattr(module, name) for module in _MODULES if hasattr(module, name))
    texts, defaults = _attributes(kind), _defaults(kind)
    missing = set(defaults) - set(texts)
    if missing:
        raise SystemExit(f"the docstring of {name} does not describe {', '.join(sorted(missing))}")
    if not defaults:
        return _table(("attribute", ""), ((f"`{field}`", text) for field, text in texts.items()))
    return _table(("field", "default", ""), ((f"`{field}`", defaults[field], text) for field, text in texts.items()))


def _described(kind: type) -> str:
    """Return the first paragraph of a docstring, and the description of each attribute."""
    first = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
    return " ".join([first, *(f"`{name}`: {text}" for name, text in _attributes(kind).items())])


def events_table(_: str) -> str:
    """Return the table of events with their fields, in the order of the union `Event`."""
    union: UnionType = events.Event
    return _table(
        ("event", "fields", ""),
        (
            (
                f"`{kind.__name__}`",
                ", ".join(f"`{field}`" for field in kind.__struct_fields__),
                _described(kind),
            )
            for kind in get_args(union)
        ),
    )


def faults_table(_: str) -> str:
    """Return the table of faults with their parameters."""
    return _table(
        ("fault", "what the client receives", "parameters"),
        ((f"`{name}`", text, _parameters(Fault(name))) for name, text in FAULTS.items()),
    )


def _parameters(fault: Fault) -> str:
    shown = {name: value for name, value in fault.params.items() if name != "kind"}
    if "status" in shown and "message" in shown:  # the common parameters of an error are listed once, with `status`
        extra = {name: value for name, value in shown.items() if name in ("after", "seconds")}
        shown = shown if fault.name == "status" else extra
    return ", ".join(f"`{name}={json.dumps(value)}`" for name, value in shown.items())


def providers_table(_: str) -> str:
    """Return the table of providers with the features of their adapters."""
    return _table(HEADS, feature_lines())


def layers(_: str) -> str:
    """Return the layers from the configuration of import-linter."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    lines: list[str] = settings["contracts"][0]["layers"]
    return "```text\n" + "\n".join(lines) + "\n```\n"


_WRITERS: dict[tuple[str, str], Callable[[str], str]] = {
    ("table", "events"): events_table,
    ("table", "faults"): faults_table,
    ("table", "providers"): providers_table,
    ("layers", ""): layers,
}


def refreshed(text: str) -> str:
    """Return a page with everything between its marks generated again."""

    def write(found: re.Match[str]) -> str:
        kind, name = found[2], found[3] or ""
        writer = fields_table if kind == "fields" else _WRITERS[kind, name]
        return f"{found[1]}\n{writer(name)}\n{found[4]}"

    return _MARK.sub(write, text)


def main() -> None:
    """Rewrite all pages."""
    for page in PAGES:
        page.write_text(refreshed(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
