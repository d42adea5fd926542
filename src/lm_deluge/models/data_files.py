"""The data files of this package."""

from __future__ import annotations

import pkgutil

__all__ = ["read_data_file"]


def read_data_file(name: str) -> bytes:
    """Return the content of a file of this package, also in a zip archive.

    `importlib.resources` does the same; its import alone takes a third of the time to load the registry.

    Raises:
        FileNotFoundError: There is no such file.
    """
    data = pkgutil.get_data("lm_deluge.models", name)
    if data is None:
        raise FileNotFoundError(name)
    return data
