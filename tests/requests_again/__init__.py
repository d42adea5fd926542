"""When two requests of a wire API say the same: one file an API, named like it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

JSON = dict[str, Any]


class Again(NamedTuple):
    """How requests of an API are compared.

    Attributes:
        normal: A request without what makes no difference to the API; it may change what it is given.
        exceptions: Recorded requests that cannot be built again: a reason, and whether it holds for a request.
    """

    normal: Callable[[JSON], JSON]
    exceptions: Mapping[str, Callable[[JSON], bool]] = {}


def find_comparisons() -> dict[str, Again]:
    """Return the comparison of each API."""
    modules = [importlib.import_module(f"requests_again.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.API: module.AGAIN for module in modules}
