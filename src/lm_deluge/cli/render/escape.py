"""Untrusted text on a terminal: control characters are made visible and have no effect.

https://owasp.org/www-project-top-10-for-large-language-model-applications/ (improper output handling): a model, or
a page that a model quotes, can write escape sequences that move the cursor, set the title or fill the clipboard. Each
character is replaced independently, so the result does not depend on how the text is cut into reads.
"""

from __future__ import annotations

__all__ = ["visible", "visible_line"]

_C0 = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_C1 = {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
# Overrides and isolates reorder the text around them. The marks U+200E and U+200F do not, and stay.
_BIDI = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# Halves of a surrogate pair, which UTF-8 cannot encode.
_SURROGATES = {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}

_SHOWN: dict[int, str] = {**_C0, 0x7F: "\u2421", **_C1, **_BIDI, **_SURROGATES}
_SHOWN_IN_LINE: dict[int, str] = {**_SHOWN, 0x0A: " ", 0x09: " "}


def visible(text: str) -> str:
    """Return `text` with control characters replaced by visible characters. Line feeds and tabs stay."""
    return text if text.isascii() and text.isprintable() else text.translate(_SHOWN)


def visible_line(text: str) -> str:
    """Return `text` on one line, with control characters replaced by visible characters."""
    return text.translate(_SHOWN_IN_LINE)
