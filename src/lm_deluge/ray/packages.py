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
    return _import("ray", "data", "Ray Data")


def import_arrow() -> Any:
    """Return the package `pyarrow`, with `pyarrow.parquet`.

    Raises:
        MissingExtraError: It is not installed.
    """
    return _import("pyarrow", "parquet", "pyarrow")


def _import(package: str, part: str, name: str) -> Any:
    try:
        importlib.import_module(f"{package}.{part}")
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(f"{name} is not installed", hint=install_hint("ray[data]")) from error
