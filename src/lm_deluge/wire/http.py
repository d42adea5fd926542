"""What is sent and what comes back first, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HttpHead", "HttpRequest"]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to be sent. Headers and body never print: they hold keys and prompts."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class HttpHead:
    """Status and headers of an answer; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
