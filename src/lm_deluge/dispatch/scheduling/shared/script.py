"""The script that the server of a shared limiter runs."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

__all__ = ["LimiterScript", "load_script"]

_PARTS = ("limits.lua", "processes.lua", "reports.lua", "reservations.lua")


class LimiterScript(NamedTuple):
    """The text of the script, and the name under which a server that has run it keeps it."""

    text: bytes
    sha1: str

    @classmethod
    def of(cls, text: bytes) -> LimiterScript:
        """Return the script with a text."""
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


@cache
def load_script() -> LimiterScript:
    """Return the script: its parts in order, each of which uses the ones before."""
    folder = files(__package__ or "")
    text = b"\n".join(folder.joinpath(name).read_bytes() for name in _PARTS)
    return LimiterScript.of(text)
