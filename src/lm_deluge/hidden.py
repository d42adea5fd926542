"""What messages and representations must not show: fields of structs with keys and prompts, parts of URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

__all__ = ["HidingStruct", "shown_url"]


def shown_url(url: str) -> str:
    """Return a URL as messages and reprs may show it: without user name, password, query and fragment."""
    return re.sub(r"[?#].*", "?...", re.sub(r"//[^/?#]*@", "//...@", url), flags=re.DOTALL)


class _Text:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class HidingStruct(msgspec.Struct, frozen=True):
    """A struct with a `__repr__` of its own, which every printer of values uses.

    Rich prints `__rich_repr__` instead of `__repr__`, in tracebacks with local variables for example, and msgspec's
    structs have one that contains all fields.
    """

    def __rich_repr__(self) -> Iterator[_Text]:  # type: ignore[override]  # Rich takes values without names, too
        yield _Text(repr(self).removeprefix(f"{type(self).__name__}(").removesuffix(")"))
