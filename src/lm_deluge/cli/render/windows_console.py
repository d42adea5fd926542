"""The console of Windows. On other platforms both functions return True."""

from __future__ import annotations

import sys

__all__ = ["enable_escape_sequences", "is_console"]

if sys.platform == "win32":
    import ctypes
    import msvcrt

    _ENABLE_VIRTUAL_TERMINAL_PROCESSING = 0x0004
    """https://learn.microsoft.com/en-us/windows/console/setconsolemode"""

    def is_console(descriptor: int) -> bool:
        """Whether a descriptor is a console. `isatty` is true for NUL as well: github.com/pallets/click/pull/1135."""
        return _mode(descriptor) is not None

    def enable_escape_sequences(descriptor: int) -> bool:
        """Let a console interpret escape sequences; return whether it does. Consoles before Windows 10 cannot."""
        mode = _mode(descriptor)
        if mode is None:
            return False
        wanted = mode | _ENABLE_VIRTUAL_TERMINAL_PROCESSING
        return bool(ctypes.windll.kernel32.SetConsoleMode(_handle(descriptor), wanted))

    def _mode(descriptor: int) -> int | None:
        """Return the mode of a console, or None if the descriptor is not a console."""
        mode = ctypes.c_ulong()
        is_known = ctypes.windll.kernel32.GetConsoleMode(_handle(descriptor), ctypes.byref(mode))
        return mode.value if is_known else None

    def _handle(descriptor: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))

else:

    def is_console(descriptor: int) -> bool:
        """Return True: elsewhere `isatty` is only true for terminals."""
        return True

    def enable_escape_sequences(descriptor: int) -> bool:
        """Return True: elsewhere TERM decides whether a terminal supports escape sequences."""
        return True
