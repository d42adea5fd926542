"""Hints for packages that are optional."""

from __future__ import annotations

__all__ = ["install_hint"]


def install_hint(package: str, *, otherwise: str = "") -> str:
    """Return the hint to install a package, as pip and similar tools take it.

    The hint names the package itself, not an extra of this library: another library has the name of this one on PyPI
    (2026-11), so `pip install lm-deluge[...]` would replace this library by that one. `otherwise` is another help.
    """
    quoted = f"'{package}'" if "[" in package else package  # zsh expands brackets
    return f"Run pip install {quoted}{otherwise and f', or {otherwise}'}."
