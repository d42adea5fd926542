"""The views of a typed answer: what an iterator over a stream yields for the events of one read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from lm_deluge.dispatch.running_call import RunningCall
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import Event
from lm_deluge.outputs.answer_type import Path
from lm_deluge.outputs.typed_call import TypedCall

__all__ = ["Pick", "pick_fields", "pick_items", "pick_partials"]

Pick: TypeAlias = Callable[[list[Event]], list[Any]]
"""Returns the items of an iterator for the events of one read."""


def _typed(call: RunningCall) -> TypedCall:
    if not isinstance(call, TypedCall):
        raise ConfigurationError(
            "the stream has no typed answer", hint="Pass its type: client.stream(..., output=...)."
        )
    return call


def pick_partials(call: RunningCall) -> Pick:
    """Return what yields the object so far.

    Raises:
        ConfigurationError: The call has no `output`.
    """
    typed = _typed(call)
    return lambda _: [typed.snapshot()] if typed.is_changed else []


def pick_fields(call: RunningCall) -> Pick:
    """Return what yields path and value of each field, once it is complete.

    Raises:
        ConfigurationError: The call has no `output`.
    """
    typed = _typed(call)
    return lambda _: typed.fields


def pick_items(call: RunningCall, path: str | Path) -> Pick:
    """Return what yields the elements of the list at a path, each once it is complete.

    Args:
        call: The call.
        path: Names separated by dots, or a tuple of names and indexes; empty: the answer itself is the list.

    Raises:
        ConfigurationError: The call has no `output`, or its type no such list.
    """
    typed = _typed(call)
    whole = _path_of(path)
    typed.kind.check_list(whole)
    depth = len(whole) + 1
    return lambda _: [
        value for at, value in typed.fields if len(at) == depth and isinstance(at[-1], int) and at[:-1] == whole
    ]


def _path_of(path: str | Path) -> Path:
    if not isinstance(path, str):
        return tuple(path)
    return tuple(path.split(".")) if path else ()
