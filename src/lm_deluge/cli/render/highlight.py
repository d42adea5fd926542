"""Syntax highlighting, line by line while the code is written."""

from __future__ import annotations

from typing import Any

from lm_deluge.cli.render.lines import Row, Run

__all__ = ["Highlighter"]

# Earlier lines are lexed again with each new line, because it may stand in a string or a comment that began above.
_ENOUGH_CONTEXT = 40  # lines; enough for most functions, and cheap to lex with each read
_MOST_CONTEXT = 200  # lines; longer strings and comments are rare, and lexing more would delay the display
_LONGEST_LINE = 1_000  # characters; longer lines are data or minified code, for which colours help little

# By token type of Pygments. A type that is not listed has the style of its nearest listed parent.
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
_MULTILINE_TYPES = ("Token.Literal.String", "Token.Comment")


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
    """Highlights the lines of one code block. A block in an unknown language has no colours."""

    def __init__(self, language: str) -> None:
        self._lexer = _find_lexer(language.lower())
        self._context: list[str] = []

    def row(self, line: str) -> Row:
        """Return a line that is not complete yet."""
        if self._lexer is None or len(line) > _LONGEST_LINE:
            return [Run(line)] if line else []
        return self._last_line(line)

    def end_line(self, line: str) -> Row:
        """Return a complete line, and remember it as context of the next line."""
        row = self.row(line)
        if self._lexer is not None:
            self._context.append(line[:_LONGEST_LINE])
            size = len(self._context)
            if size > _MOST_CONTEXT or (size > _ENOUGH_CONTEXT and not self._is_inside_token()):
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

    def _is_inside_token(self) -> bool:
        """Whether the next line starts inside a string or a comment."""
        kinds = [str(kind) for kind, text in self._lexer.get_tokens("\n".join([*self._context, "x"])) if text]
        return bool(kinds) and kinds[-1].startswith(_MULTILINE_TYPES)
