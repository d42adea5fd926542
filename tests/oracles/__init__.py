"""Simple readers of recorded bodies, independent of our decoders; one module per API."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Usage = dict[str, int | None]
FrameEnds = Callable[[bytes], list[tuple[int, bytes]]]


def nothing_overlooked(frames: list[bytes]) -> dict[str, Any]:
    """Return no replacements: the recorder's `expected` is complete."""
    return {}


def same_usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    """Return the counts unchanged: the provider counts as `Usage` does."""
    return dict(expected)


class Oracle(NamedTuple):
    """The expected reading of the bodies of one wire API.

    Attributes:
        frame_ends: Returns the end offset and the data of each frame, in order. A cut between two ends cuts a frame.
        is_terminal: Whether a frame with this data completes the response.
        is_error: Whether a frame with this data is an error.
        usage: Converts the five numbers of `expected["usage"]` to our convention; `raw` is the provider's object.
        by_hand: Names of bodies for which the outcome of a cut cannot be predicted, each with the reason.
        overlooked: Returns replacements for fields of `expected` that the recorder did not read from the frames.
    """

    frame_ends: FrameEnds
    is_terminal: Callable[[bytes], bool]
    is_error: Callable[[bytes], bool] = lambda data: b'"error"' in data
    usage: Callable[[dict[str, Any], dict[str, Any]], Usage] = same_usage
    by_hand: Mapping[str, str] = MappingProxyType({})
    overlooked: Callable[[list[bytes]], dict[str, Any]] = nothing_overlooked


def sse_frame_ends(body: bytes) -> list[tuple[int, bytes]]:
    """Return the end offset and the data of each one-line event, found with a regular expression."""
    return [(found.end(1), found[1]) for found in re.finditer(rb"(?:^|(?<=[\r\n]))[ ]?data:[ ]?([^\r\n]*)", body)]


def find_oracles() -> dict[str, Oracle]:
    """Return the oracle of each API that has one."""
    modules = [importlib.import_module(f"oracles.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.API: module.ORACLE for module in modules}
