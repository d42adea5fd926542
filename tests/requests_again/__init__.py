"""Normal forms in which equivalent requests of a wire API are equal; one module per API."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

JSON = dict[str, Any]


class Again(NamedTuple):
    """How requests of an API are compared.

    Attributes:
        normal: Returns the normal form of a request, without differences that the API ignores; may modify its argument.
        exceptions: Reasons why a recorded request cannot be rebuilt, each with a test whether it applies to a request.
    """

    normal: Callable[[JSON], JSON]
    exceptions: Mapping[str, Callable[[JSON], bool]] = {}


def find_comparisons() -> dict[str, Again]:
    """Return the comparison of each API."""
    modules = [importlib.import_module(f"requests_again.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.API: module.AGAIN for module in modules}
