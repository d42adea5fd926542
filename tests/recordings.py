"""Recorded provider responses. They are stored next to the repository; without them their tests are skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.testing.decode import decode_body

SHARED = Path(os.environ.get("DELUGE_SHARED") or Path(__file__).parents[2] / "shared")
IS_SOAK = os.environ.get("DELUGE_SOAK") == "1"
REASON = "no recorded streams in ../shared/streams or $DELUGE_SHARED/streams"


class Recording(NamedTuple):
    """A recorded exchange: its metadata and the exact body."""

    name: str
    about: dict[str, Any]
    body: bytes

    @property
    def expected(self) -> dict[str, Any]:
        return self.about["expected"]


def names(api: str) -> list[str]:
    """Return the names of a wire API's recordings; an empty list if the recordings are missing."""
    return sorted(path.stem for path in (SHARED / "streams" / api).glob("*.json"))


@cache
def load(api: str, name: str) -> Recording:
    """Return a recording by name."""
    path = SHARED / "streams" / api / name
    about = json.loads(path.with_name(name + ".json").read_text())
    return Recording(name, about, path.with_name(name + ".body").read_bytes())


def outcome_of(api: str, body: bytes | Iterable[bytes]) -> tuple[APIResponse, DelugeError | None]:
    """Return the response and None, or the partial response and the error."""
    try:
        return decode_body(api, body), None
    except DelugeError as error:
        return error.partial or APIResponse(), error
