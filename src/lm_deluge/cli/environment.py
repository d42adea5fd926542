"""What the commands take from their surroundings: `.env`, the terminal's kind, the folder for their state."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["from_dotenv", "has_colours", "is_dumb_terminal", "load_dotenv_here", "raise_file_limit", "state_folder"]

_loaded: dict[str, str] = {}


def load_dotenv_here() -> str | None:
    """Read the keys and addresses of providers from `.env` of the working folder; return what went wrong.

    What is set already wins, but for a key that comes together with an address: it belongs there. Other names are
    left alone: a folder from somewhere else could choose a proxy, or the certificates to be trusted. Only the
    commands do this, never the library.
    """
    path = Path(".env")
    if not path.is_file():
        return None
    from dotenv import dotenv_values

    from lm_deluge.models.registry import list_providers

    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        return f".env was not read: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}"
    usable = {name: value for name, value in values.items() if value is not None and "\0" not in value}
    for row in list_providers():
        addresses = [name for name in row.address_env if name in usable and name not in os.environ]
        keys = [name for name in row.key_env if name in usable and (addresses or name not in os.environ)]
        for name in (*addresses, *keys):
            os.environ[name] = _loaded[name] = usable[name]
    return None


def from_dotenv(names: tuple[str, ...]) -> str | None:
    """Return the first of these variables that came from `.env`."""
    return next((name for name in names if name in _loaded), None)


def is_dumb_terminal() -> bool:
    """Whether the terminal says that it knows no escape sequences."""
    return os.environ.get("TERM", "dumb" if sys.platform != "win32" else "") == "dumb"


def has_colours() -> bool:
    """Whether colours are welcome (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def state_folder() -> Path:
    """Return where the commands keep what is no configuration, as the platform wants it."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path.home() / ".local" / "state"
    # The specification wants relative paths ignored: https://specifications.freedesktop.org/basedir-spec/
    chosen = os.environ.get("XDG_STATE_HOME", "")
    return (Path(chosen) if Path(chosen).is_absolute() else base) / "lm-deluge"


def raise_file_limit() -> None:
    """Let this process open as many files, connections among them, as it is allowed to."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS names no hard limit and refuses to have none (setrlimit(2), 2026-11).
        wanted = 10_240 if sys.platform == "darwin" and hard == resource.RLIM_INFINITY else hard
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
