"""How recorded bodies are read without our decoders: one file an API, named like it."""

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
    """The recorder saw everything."""
    return {}


def same_usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    """The provider counts as we do."""
    return dict(expected)


class Oracle(NamedTuple):
    """What a plain reading says of the bodies of one wire API.

    Attributes:
        frame_ends: Where each frame is whole, and its data, in order. Between two of them the body is cut in a frame.
        is_terminal: Whether an answer is complete once a frame with this data came.
        is_error: Whether a frame with this data is an error.
        usage: The five numbers of `expected["usage"]` in our convention; `raw` is the provider's object.
        by_hand: Bodies that no cut can be told of, each with the reason.
        overlooked: What of `expected` is to be replaced: what the recorder did not see, though the frames say it.
    """

    frame_ends: FrameEnds
    is_terminal: Callable[[bytes], bool]
    is_error: Callable[[bytes], bool] = lambda data: b'"error"' in data
    usage: Callable[[dict[str, Any], dict[str, Any]], Usage] = same_usage
    by_hand: Mapping[str, str] = MappingProxyType({})
    overlooked: Callable[[list[bytes]], dict[str, Any]] = nothing_overlooked


def sse_frame_ends(body: bytes) -> list[tuple[int, bytes]]:
    """Return where the data of each one-line event ends, and the data; read with a regular expression."""
    return [(found.end(1), found[1]) for found in re.finditer(rb"(?:^|(?<=[\r\n]))[ ]?data:[ ]?([^\r\n]*)", body)]


def find_oracles() -> dict[str, Oracle]:
    """Return the oracle of each API that has one."""
    modules = [importlib.import_module(f"oracles.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.API: module.ORACLE for module in modules}
