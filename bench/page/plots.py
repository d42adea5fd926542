"""The plots of the page, as small SVG files."""

from collections.abc import Mapping
from pathlib import Path

from bench.page.measure import Figures

_OURS, _OTHERS, _BASE = "#0b7285", "#adb5bd", "#495057"


def _colour(name: str) -> str:
    return _OURS if name == "lm_deluge" else _BASE if name == "aiohttp" else _OTHERS


def bars(path: Path, title: str, values: Mapping[str, float], unit: str) -> None:
    """Draw a bar for each peer, the shortest on top."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "lm_deluge"  # the same figures make the same file
    names = sorted(values, key=lambda name: values[name], reverse=True)
    figure, axes = plt.subplots(figsize=(7, 0.5 + 0.42 * len(names)), layout="constrained")
    drawn = axes.barh(names, [values[name] for name in names], color=[_colour(name) for name in names])
    axes.bar_label(drawn, fmt=lambda value: f"{value:.3g} {unit}", padding=4)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlim(right=max(values.values()) * 1.2)
    axes.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


def lines(path: Path, title: str, by_streams: Mapping[int, Mapping[str, Figures]], name: str, label: str) -> None:
    """Draw a line for each peer over the number of streams, in microseconds, both axes logarithmic."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "lm_deluge"
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    peers = dict.fromkeys(peer for found in by_streams.values() for peer in found)
    for peer in peers:
        points = [
            (count, found[peer][name] * 1e6) for count, found in by_streams.items() if name in found.get(peer, {})
        ]
        if points:
            width = 2.4 if peer == "lm_deluge" else 1.2
            axes.plot(*zip(*points, strict=True), marker="o", color=_colour(peer), linewidth=width)
            axes.annotate(peer, points[-1], xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set(xscale="log", yscale="log", xlabel="streams at a time", ylabel=label)
    axes.set_xticks(list(by_streams), [f"{count:,}" for count in by_streams])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.18)
    axes.set_title(title, loc="left", fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


def _save(figure: object, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})  # type: ignore[attr-defined]
    plt.close(figure)  # type: ignore[arg-type]
