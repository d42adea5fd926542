"""Untrusted text on a terminal: control characters and invisible characters are shown, and have no effect.

https://owasp.org/www-project-top-10-for-large-language-model-applications/ (improper output handling): a model, or
a page that a model quotes, can write escape sequences that move the cursor, set the title or fill the clipboard, and
text that no reader sees but that the next program obeys. What a character becomes depends on itself and on the
character before it, so the result does not depend on how the text is cut into reads: see `Escaper`.
"""

from __future__ import annotations

import re

__all__ = ["Escaper", "visible", "visible_line"]

_C0 = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_C1 = {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
# Halves of a surrogate pair, which UTF-8 cannot encode.
_SURROGATES = {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}

_SHOWN: dict[int, str] = {**_C0, 0x7F: "\u2421", **_C1, **_SURROGATES}
_SHOWN_IN_LINE: dict[int, str] = {**_SHOWN, 0x0A: " ", 0x09: " "}

# Characters without a glyph: Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt), which has
# the zero-width characters, the marks, overrides and isolates of bidirectional text, variation selectors and tags;
# beside it the separators of lines and paragraphs, and the marks of annotations.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Where such a character belongs to the writing, it stays: directly after a character that is joined or varied by it.
_EMOJI = "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_JOINING_LETTERS = (
    "\u0590-\u061b\u061d-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17b3\u17b6-\u17ff\u1820-\u18af"
    "\ufb1d-\ufdff\ufe70-\ufefc"
)
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SCAN = re.compile(
    f"(?<=[{_EMOJI}\ufe0f])\u200d|(?<=[{_EMOJI}0-9#*])[\ufe0e\ufe0f]"
    f"|(?<=[{_JOINING_LETTERS}])[\u200c-\u200f\u061c]|(?<=[\u1820-\u18af])[\u180b-\u180f]"
    f"|(?<=[{_IDEOGRAPHS}])[\ufe00-\ufe02\U000e0100-\U000e01ef]"
    f"|([{_INVISIBLE}])"
)


def _shown(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[0]
    code = ord(found[1])
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"  # noqa: PLR2004 - the largest code of four digits


def visible(text: str) -> str:
    """Return `text` with control characters and invisible characters made visible. Line feeds and tabs stay."""
    if text.isascii():
        return text if text.isprintable() else text.translate(_SHOWN)
    return _SCAN.sub(_shown, text).translate(_SHOWN)


def visible_line(text: str) -> str:
    """Return `text` on one line, with control characters and invisible characters made visible."""
    return _SCAN.sub(_shown, text).translate(_SHOWN_IN_LINE)


class Escaper:
    """Makes text visible that arrives in pieces, with the same result as `visible` of the whole text."""

    def __init__(self) -> None:
        self._last = ""

    def feed(self, text: str) -> str:
        """Return the next piece of the text, made visible."""
        last, self._last = self._last, text[-1:] or self._last
        if text.isascii():
            return visible(text)
        return visible(last + text)[len(visible(last)) :]
