"""The page: machine, versions, tables and plots, as Markdown."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.page import measure
from bench.page.environments import OLDER
from bench.page.measure import Figures

_FAILED = (
    "The streams of lm-deluge 0.0.168 fail with an `IndexError`\nafter the last text: it expects choices in the chunk "
    "with the usage."
)
_UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0}


def machine() -> str:
    """Return a line about the machine."""
    model = next(
        (line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {sys.version.split()[0]}"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(found: Mapping[str, Figures], columns: Mapping[str, tuple[str, str]], base: str | None = "aiohttp") -> str:
    """Return a table with a row for each peer.

    Args:
        found: The figures of each peer.
        columns: Heading and unit of each figure that is shown.
        base: The peer to which the first figure is a ratio; None: no ratio.
    """
    heads = [f"{heading}" for heading, _ in columns.values()]
    first = next(iter(columns))
    if base in found:
        heads.insert(1, f"ratio to {base}")
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name, figures in sorted(found.items(), key=lambda pair: pair[1].get(first, 0.0)):
        cells = [_cell(figures, key, unit) for key, (_, unit) in columns.items()]
        if base in found:
            cells.insert(1, f"{figures[first] / found[base][first]:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figures: Figures, key: str, unit: str) -> str:
    if key not in figures:
        return ""
    value = figures[key]
    return f"{value:,.0f}" if not unit else f"{_three_digits(value * _UNITS[unit])} {unit}"


def _three_digits(value: float) -> str:
    digits = f"{value:.3g}"
    return f"{float(digits):,.0f}" if "e" in digits or value >= 100 else digits


def page(sections: Mapping[str, tuple[str, str, str | None]], versions: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        sections: Introduction, table and name of the plot of each section, by its heading.
        versions: The version of each library.
    """
    lines = [
        "# Performance",
        "",
        "This page is the output of `python -m bench.page`, which installs each library into an environment of its own",
        "and runs them alternately against the same servers on one machine. Absolute times depend on it and on",
        "what else it does; ratios less so. Each figure is the median of several runs, each in a process of its own;",
        "those of many streams at a time are of one run.",
        "",
        f"- Machine: {machine()}",
        f"- Libraries: {', '.join(f'{name.split()[0]} {version}' for name, version in versions.items())}",
        "- `aiohttp` is a minimal loop over aiohttp and msgspec that reads the texts, and nothing else: no limits, no",
        "  retries, no detection of faults, no costs.",
    ]
    for heading, (introduction, shown, plot) in sections.items():
        lines += ["", f"## {heading}", "", introduction, ""]
        if plot is not None:
            lines += [f"![{heading}](plots/{plot})", ""]
        lines.append(shown)
    return "\n".join(lines) + "\n"


def paced_table(by_streams: Mapping[int, Mapping[str, Figures]]) -> str:
    """Return the table of paced streams: CPU and delay for each number of streams."""
    peers = dict.fromkeys(peer for found in by_streams.values() for peer in found)
    heads = " | ".join(f"{count:,} streams" for count in by_streams)
    lines = [
        f"| CPU per event; median delay, delay of the slowest 1 % | {heads} |",
        "| --- |" + " --- |" * len(by_streams),
    ]
    for peer in peers:
        cells = []
        for found in by_streams.values():
            own = found.get(peer)
            if own is None or "lag_p50_s" not in own:
                cells.append("fails")
                continue
            delay = f"{own['lag_p50_s'] * 1e3:.0f}, {own['lag_p99_s'] * 1e3:.0f} ms"
            failed = f"; {own['failed']:.0f} failed" if own.get("failed") else ""
            cells.append(f"{own['cpu_s'] * 1e6:.0f} us; {delay}{failed}")
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    seconds = measure.PACED_EVENTS // measure.PACED_PER_SECOND
    notes = f"Each stream has {measure.PACED_PER_SECOND} events a second for {seconds} seconds."
    if any(found.get(OLDER.name, {}).get("failed") for found in by_streams.values()):
        notes += f" {_FAILED}"
    return "\n".join(lines) + f"\n\n{notes}"
