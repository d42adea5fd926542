"""`python -m bench.page [FOLDER]` measures all peers; it writes `performance.md` and `plots/*.svg` into a folder."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from bench import gateway
from bench.page import measure, plots, report
from bench.page.environments import (
    DELUGE,
    LITELLM,
    OLDER,
    PEERS,
    PYDANTIC_AI,
    Peer,
    python_of,
    version_of,
)
from bench.page.measure import Figures
from bench.serving import serving

Section = tuple[str, str, str | None]
CPU = {"cpu_s": ("CPU", "us")}


def only(pythons: Mapping[Peer, str], *peers: Peer) -> dict[Peer, str]:
    return {peer: python for peer, python in pythons.items() if peer in peers}


def note(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def paced(pythons: Mapping[Peer, str], plot_folder: Path) -> Section:
    """Measure many streams at the speed of a model; a peer that fails is left out of the larger numbers."""
    by_streams: dict[int, dict[str, Figures]] = {}
    for count in measure.PACED_STREAMS:
        note(f"{count} paced streams")
        by_streams[count] = measure.measure_paced(pythons, count)
    plots.lines(
        plot_folder / "paced-streams.svg",
        "CPU time per event, many streams at a time",
        by_streams,
        "cpu_s",
        "CPU per event, us",
    )
    introduction = (
        "Many answers at a time, at the speed of a model, in one process. The delay is the time from the server's\n"
        "send until the program has the text; a delay of seconds means that the process cannot keep up."
    )
    return introduction, report.paced_table(by_streams), "paced-streams.svg"


def bars(plot_folder: Path, plot: str, title: str, found: Mapping[str, Figures], unit: str, factor: float) -> str:
    name = next(iter(next(iter(found.values()))))
    plots.bars(plot_folder / plot, title, {peer: each[name] * factor for peer, each in found.items()}, unit)
    return plot


async def relayed(litellm: str | None) -> dict[str, Figures]:
    """Measure the gateways: this one, a bare relay of Starlette, and LiteLLM's proxy."""
    found: dict[str, Figures] = {}
    with serving("bench.gateway_upstream") as (_, upstream_port):
        upstream = f"http://127.0.0.1:{upstream_port}/v1"
        direct = min([await gateway.plain_latency_s(upstream) for _ in range(3)])

        async def one(name: str, port: str, pid: int) -> None:
            url = f"http://127.0.0.1:{port}/v1"
            latency = min([await gateway.plain_latency_s(url) for _ in range(3)])
            cpu = min([await gateway.cpu_per_event(url, pid) for _ in range(2)])
            found[name] = {"cpu_s": cpu, "added_s": latency - direct}

        for name, peer in (("bare Starlette", "starlette"), ("deluge serve", "deluge")):
            with serving("bench.gateway_peers", peer, upstream) as (process, port):
                await one(name, port, process.pid)
        if litellm is not None:
            command = str(Path(litellm).with_name("litellm"))
            with gateway.litellm(command, upstream) as (process, port):
                await one("litellm proxy", port, process.pid)
    return found


def sections_of(pythons: Mapping[Peer, str], plot_folder: Path) -> dict[str, Section]:
    """Measure everything; return the sections of the page."""
    sections: dict[str, Section] = {"Many streams at a time": paced(pythons, plot_folder)}
    note("one answer as fast as possible")
    burst = measure.measure_answers(pythons, "burst", f"{measure.BURST_EVENTS}/1", str(measure.BURST_ANSWERS))
    plot = bars(plot_folder, "burst.svg", "CPU time per event of a fast answer", burst, "us", 1e6)
    sections["One answer as fast as possible"] = (
        f"An answer of {measure.BURST_EVENTS:,} events, one in each HTTP chunk, in a burst: CPU time per event.",
        report.table(burst, CPU),
        plot,
    )
    note("first token")
    cold, warm = (
        measure.measure_cold(pythons),
        measure.measure_answers(pythons, "warm", "24/1", str(measure.WARM_CALLS)),
    )
    for name, figures in cold.items():
        figures["warm_s"] = warm.get(name, {}).get("first_s", 0.0)
    columns = {"first_s": ("cold", "ms"), "cpu_s": ("CPU, cold", "ms"), "warm_s": ("warm", "ms")}
    sections["The first token"] = (
        "Cold: from the start of a Python process, imports included. Warm: the median of calls one after the other.",
        report.table(cold, columns),
        None,
    )
    note("imports")
    sections["Import"] = (
        "The import that a first call needs: CPU time.",
        report.table(measure.measure_imports(pythons), {"cpu_s": ("CPU", "ms")}),
        None,
    )
    note("collected calls")
    for kind in ("streamed", "plain"):
        path = f"{measure.COLLECTED_TOKENS}/1"
        peers = {peer: python for peer, python in pythons.items() if (kind, peer) != ("streamed", OLDER)}
        found = measure.measure_answers(peers, kind, path, str(measure.COLLECTED[kind]))
        sections[f"Collected answers, {kind}"] = (
            f"{measure.COLLECTED[kind]:,} answers of {measure.COLLECTED_TOKENS} tokens, 100 at a time: CPU per call.",
            report.table(found, CPU),
            None,
        )
    note("typed answers")
    typed = measure.measure_answers(only(pythons, DELUGE, PYDANTIC_AI), "typed", "json/1", str(measure.TYPED_ANSWERS))
    sections["Typed answers"] = (
        "An object of 20 kB in pieces of five bytes, with a partial object after each piece: CPU time per answer.",
        report.table(typed, {"cpu_s": ("CPU", "ms"), "objects": ("partial objects", "")}, base=None),
        None,
    )
    note("gateways")
    found = asyncio.run(relayed(pythons.get(LITELLM)))
    gateways = report.table(found, {**CPU, "added_s": ("latency added to a plain call", "ms")}, base="bare Starlette")
    sections["Gateway"] = ("CPU time of the server per relayed event.", gateways, None)
    return sections


def main(folder: Path) -> None:
    plot_folder = folder / "plots"
    plot_folder.mkdir(parents=True, exist_ok=True)
    found = {peer: python_of(peer) for peer in PEERS}
    pythons = {peer: python for peer, python in found.items() if python is not None}
    versions = {peer.name: version_of(peer, python) for peer, python in pythons.items()}
    text = report.page(sections_of(pythons, plot_folder), versions)
    (folder / "performance.md").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
