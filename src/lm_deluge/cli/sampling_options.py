"""The option `-o NAME VALUE`, which sets any sampling parameter."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["complete_parameter", "parse_parameters"]

_REPEATABLE = "stop"


@cache
def _types() -> dict[str, Any]:
    """Return the parameters and the types of their values."""
    from typing import get_type_hints

    from lm_deluge.config import SamplingParams

    return {name: get_type_hints(SamplingParams)[name] for name in SamplingParams.__struct_fields__}


def parse_parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Convert the values of `-o NAME VALUE` to the types of the parameters.

    Raises:
        ConfigurationError: There is no such parameter, it has a value already, or the value is of another type.
    """
    from lm_deluge.config import unknown_option
    from lm_deluge.errors import ConfigurationError

    found: dict[str, Any] = {}
    for written, text in pairs:
        name = written.replace("-", "_")
        if name not in _types():
            raise unknown_option(written, frozenset(_types()), kind="sampling parameter")
        if name == _REPEATABLE:
            found[name] = (*found.get(name, ()), text)
        elif name in found:
            raise ConfigurationError(f"-o {name} is given twice", hint="Remove one of the two values.")
        else:
            found[name] = _convert(name, text)
    return found


def _convert(name: str, text: str) -> Any:
    import msgspec

    from lm_deluge.errors import ConfigurationError

    kind = _types()[name]
    if kind == str | None:
        return text
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        known = [each for part in getattr(kind, "__args__", ()) for each in getattr(part, "__args__", ())]
        raise ConfigurationError(
            f"-o {name} has the value {text!r}, which is not {_name_of(kind)}",
            hint=f"Known: {', '.join(known)}." if known else None,
        ) from None


def _name_of(kind: Any) -> str:
    types = {kind, *getattr(kind, "__args__", ())}
    names = ((bool, "true or false"), (float, "a number"), (int, "an integer"))
    return next((name for each, name in names if each in types), "a known value")


def complete_parameter(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of parameters that start with a text."""
    return [CompletionItem(name) for name in _types() if name.startswith(incomplete)]
