"""The optional packages, imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

from lm_deluge.errors import MissingExtraError
from lm_deluge.extras import install_hint

__all__ = ["import_arrow", "import_ray"]


def import_ray() -> Any:
    """Return the package `ray`, with `ray.data`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("Ray Data is not installed", hint=install_hint("ray[data]")) from error


def import_arrow() -> Any:
    """Return the package `pyarrow`, with `pyarrow.parquet`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError("pyarrow is not installed", hint=install_hint("ray[data]")) from error
