"""The options of a batch in the header of its journal, so that a message can name what differs. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

__all__ = ["describe_differences", "shown_options"]

Shown: TypeAlias = dict[str, str]

_LONGEST = 60  # characters of a value in a message: a few names of models
_HASH = "sha256:"


def shown_options(options: Mapping[str, Any]) -> Shown:
    """Return options as short texts. Texts of the user, which may be prompts, are only there as a hash.

    Args:
        options: The options that shape the answers; a mapping among them has options itself. None is an option that
            is not set.
    """
    shown: Shown = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            shown |= shown_options(value)
        elif value is not None:
            shown[name] = _text_of(name, value)
    return shown


def _text_of(name: str, value: Any) -> str:
    if isinstance(value, bool | int | float):
        return str(value)
    if name == "models":
        return ", ".join(map(str, value))
    data = msgspec.json.encode(value, enc_hook=repr)
    return _HASH + hashlib.sha256(data).hexdigest()[:16]


def describe_differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return how the options of two runs differ, for the end of a sentence; empty if they do not."""
    names = sorted({*before, *now}, key=lambda name: (name != "models", name))
    return "; ".join(
        _difference(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)
    )


def _difference(name: str, before: str | None, now: str | None) -> str:
    subject = name.replace("_", " ")
    if (before or now or "").startswith(_HASH):
        if before is None or now is None:
            return f"{subject} was {'not set' if before is None else 'set'} and is {'set' if before is None else 'not'}"
        return f"{subject} is another one"
    verbs = ("were", "are") if name == "models" else ("was", "is")
    was, now_is = (("not set" if each is None else each)[:_LONGEST] for each in (before, now))
    return f"{subject} {verbs[0]} {was} and {verbs[1]} {now_is}"
