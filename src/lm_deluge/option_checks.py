"""Checks of the values of options, by kind. Each raises a ConfigurationError that names the option."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from lm_deluge.errors import ConfigurationError

__all__ = [
    "check_cache",
    "check_choice",
    "check_hedge",
    "check_keys",
    "check_limiter",
    "check_observers",
    "check_per_provider",
    "check_range",
    "check_type",
    "check_whole",
]


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Raise a ConfigurationError unless the value of option `name` is None or a number from `low` to `high`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        bounds = f"between {low:g} and {high:g}" if high < math.inf else f"{low:g} or more"
        raise ConfigurationError(f"{name}={value!r} is not a number {bounds}")


def check_whole(name: str, value: Any) -> None:
    """Raise a ConfigurationError unless the value of option `name` is None or an integer."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigurationError(f"{name}={value!r} is not an integer")


def check_type(name: str, value: Any, kind: type, what: str) -> None:
    """Raise a ConfigurationError unless the value of option `name` is None or of a type; `what` describes it."""
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{name} is not {what}, but {type(value).__name__}")


def check_limiter(value: Any) -> None:
    """Raise a ConfigurationError unless the value of `limiter` is None or the URL of a Redis server."""
    check_type("limiter", value, str, "the URL of a server")
    if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError(
            "limiter is not the URL of a Redis server", hint='Write limiter="redis://127.0.0.1:6379/0", for example.'
        )


def check_keys(value: Any) -> None:
    """Raise a ConfigurationError unless `api_key` is text, a list of texts, or a mapping from providers to these."""
    if value is None:
        return
    is_mapping = isinstance(value, Mapping)
    what = (
        "map names of providers to texts or lists of texts" if is_mapping else "be text, a list of texts, or a mapping"
    )
    for keys in value.values() if is_mapping else (value,):
        texts = (keys,) if isinstance(keys, str) else keys
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise ConfigurationError(f"api_key must {what}")
        if not texts:
            raise ConfigurationError("api_key is an empty list", hint="Leave it out to use the environment's key.")


def check_per_provider(name: str, value: Any) -> None:
    """Raise a ConfigurationError unless the value of option `name` is text, or text by provider."""
    if not isinstance(value, Mapping):
        check_type(name, value, str, "text, or a mapping from providers to text")
    elif not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ConfigurationError(f"{name} must map names of providers to text")


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise a ConfigurationError unless the value of option `name` is None or a known one."""
    if value is not None and value not in known:
        raise ConfigurationError(f"{name}={value!r} is not a known value", hint=f"Known: {', '.join(known)}.")


def check_hedge(value: Any, max_attempts: int) -> None:
    """Raise a ConfigurationError unless `hedge_after` is seconds or a percentile, and may have an effect."""
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not is_number and not (isinstance(value, str) and re.fullmatch("p[5-9][0-9]", value, re.ASCII)):
        raise ConfigurationError(
            f"hedge_after={value!r} is neither a number of seconds above 0 nor a percentile",
            hint='Percentiles go from "p50" to "p99".',
        )
    if max_attempts == 1:
        raise ConfigurationError("hedge_after needs a second attempt", hint="Set max_attempts to 2 or more.")


def check_cache(cache: Any) -> None:
    """Raise a ConfigurationError unless `local_cache` is a switch, a path or a cache."""
    if cache is None or isinstance(cache, bool | os.PathLike) or (isinstance(cache, str) and cache):
        return
    from inspect import iscoroutinefunction

    if not all(iscoroutinefunction(getattr(cache, name, None)) for name in ("get", "put")):
        raise ConfigurationError(
            "local_cache is neither True, nor a path, nor an object with the async methods get and put"
        )


def check_observers(value: Any) -> None:
    """Raise a ConfigurationError unless `observers` is a list of observers."""
    are_observers = isinstance(value, list | tuple) and all(
        callable(getattr(each, "call_started", None)) and not isinstance(each, type) for each in value
    )
    if not are_observers:
        raise ConfigurationError("observers is not a list of telemetry.Observer objects")
