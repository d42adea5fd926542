"""The surroundings of the commands: `.env`, the kind of terminal, the folder for state, the limit of open files."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = [
    "MODEL_VARIABLE",
    "from_dotenv",
    "has_colours",
    "is_dumb_terminal",
    "load_dotenv_here",
    "raise_file_limit",
    "setting_command",
    "state_folder",
]

MODEL_VARIABLE = "DELUGE_MODEL"

_loaded: dict[str, str] = {}


def load_dotenv_here() -> str | None:
    """Copy the keys and addresses of providers, and the default model, from `.env` in the working folder.

    The environment has precedence, with one exception: a key that stands in `.env` together with an address belongs to
    that address. Other variables are not read, because a `.env` from elsewhere could set a proxy or the trusted
    certificates. Only the commands call this function, the library never does.

    Returns:
        The reason why the file was not read, or None.
    """
    path = Path(".env")
    if not path.is_file():
        return None
    from dotenv import dotenv_values

    from lm_deluge.models.registry import list_providers

    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        return f".env was not read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}"
    usable = {name: value for name, value in values.items() if value is not None and "\0" not in value}
    for row in list_providers():
        addresses = [name for name in row.address_env if name in usable and name not in os.environ]
        keys = [name for name in row.key_env if name in usable and (addresses or name not in os.environ)]
        for name in (*addresses, *keys):
            os.environ[name] = _loaded[name] = usable[name]
    if MODEL_VARIABLE in usable:
        os.environ.setdefault(MODEL_VARIABLE, usable[MODEL_VARIABLE])
    return None


def from_dotenv(names: tuple[str, ...]) -> str | None:
    """Return the first of these variables that was read from `.env`."""
    return next((name for name in names if name in _loaded), None)


def setting_command(name: str, value: str) -> str:
    """Return the command that sets an environment variable: for PowerShell on Windows, else for POSIX shells."""
    return f'$env:{name}="{value}"' if sys.platform == "win32" else f"export {name}={value}"


def is_dumb_terminal() -> bool:
    """Whether the terminal does not support escape sequences, according to TERM."""
    return os.environ.get("TERM", "dumb" if sys.platform != "win32" else "") == "dumb"


def has_colours() -> bool:
    """Whether colours may be used (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def state_folder() -> Path:
    """Return the folder for files that are neither configuration nor cache, by the conventions of the platform."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path.home() / ".local" / "state"
    # Relative paths are to be ignored: https://specifications.freedesktop.org/basedir-spec/
    chosen = os.environ.get("XDG_STATE_HOME", "")
    return (Path(chosen) if Path(chosen).is_absolute() else base) / "lm-deluge"


def raise_file_limit() -> None:
    """Raise the limit of open files, and thereby of connections, as far as the system permits. Windows has none."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS reports an infinite hard limit and refuses an infinite soft limit (setrlimit(2), 2026-11).
        wanted = 10_240 if sys.platform == "darwin" and hard == resource.RLIM_INFINITY else hard
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
