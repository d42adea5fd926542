"""Source code in colours, line by line while it is written."""

from __future__ import annotations

from typing import Any

from lm_deluge.cli.render.lines import Row, Run

__all__ = ["Highlighter"]

# Lines that are looked at again to know what the next one stands in: a string, a comment, a rule of CSS.
_ENOUGH_CONTEXT = 40
_MOST_CONTEXT = 200
_LONGEST_LINE = 1_000

# By token type of Pygments, the nearest parent holds.
_STYLES = {
    "Token.Comment": "2;3",
    "Token.Keyword": "35",
    "Token.Operator.Word": "35",
    "Token.Literal.String": "32",
    "Token.Literal.String.Doc": "32",
    "Token.Literal.Number": "36",
    "Token.Name.Function": "34",
    "Token.Name.Class": "1;34",
    "Token.Name.Builtin": "36",
    "Token.Name.Decorator": "33",
    "Token.Name.Exception": "31",
    "Token.Name.Tag": "34",
    "Token.Name.Attribute": "33",
    "Token.Generic.Deleted": "31",
    "Token.Generic.Inserted": "32",
    "Token.Generic.Heading": "1",
    "Token.Generic.Subheading": "35",
}
_SPANNING = ("Token.Literal.String", "Token.Comment")


def _style_of(kind: Any) -> str:
    while kind.parent is not None:
        if (style := _STYLES.get(str(kind))) is not None:
            return style
        kind = kind.parent
    return ""


def _find_lexer(language: str) -> Any:
    if not language:
        return None
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except (ClassNotFound, ValueError, ImportError):
        return None


class Highlighter:
    """The lines of one code block. A language that is not known is left in one colour."""

    def __init__(self, language: str) -> None:
        self._lexer = _find_lexer(language.lower())
        self._context: list[str] = []

    def row(self, line: str) -> Row:
        """Return a line as it stands now."""
        if self._lexer is None or len(line) > _LONGEST_LINE:
            return [Run(line)] if line else []
        return self._last_line(line)

    def end_line(self, line: str) -> Row:
        """Return a line that is complete; the next one goes on behind it."""
        row = self.row(line)
        if self._lexer is not None:
            self._context.append(line[:_LONGEST_LINE])
            size = len(self._context)
            if size > _MOST_CONTEXT or (size > _ENOUGH_CONTEXT and not self._is_within()):
                self._context.clear()
        return row

    def _last_line(self, line: str) -> Row:
        row: Row = []
        for kind, text in self._lexer.get_tokens("\n".join([*self._context, line])):
            before, newline, last = text.rpartition("\n")
            if newline:
                row.clear()
            piece = last if newline else before + last
            if piece:
                row.append(Run(piece, _style_of(kind)))
        return row if "".join(run.text for run in row) == line else [Run(line)]

    def _is_within(self) -> bool:
        """Whether the next line begins inside a string or a comment."""
        kinds = [str(kind) for kind, text in self._lexer.get_tokens("\n".join([*self._context, "x"])) if text]
        return bool(kinds) and kinds[-1].startswith(_SPANNING)
