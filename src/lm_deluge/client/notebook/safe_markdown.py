"""Markdown of a model as Markdown that a notebook can be given: without HTML, images, and links that run code.

JupyterLab and VS Code sanitise Markdown in the outputs of untrusted notebooks only. The outputs of cells that a user
has run are trusted: HTML in them would run scripts with the rights of the notebook, and an image would send what its
URL contains to a server as soon as it is shown:
https://github.com/jupyterlab/jupyterlab/blob/main/packages/rendermime/src/renderers.ts (renderHTML, 2026-11),
https://github.com/microsoft/vscode/blob/main/extensions/markdown-language-features/notebook/index.ts (2026-11).

Several parsers read the result, and they differ in details. Nothing depends on these: a block of code becomes a fence
at the start of a line between empty lines, which has one reading only; in all other text, each character that could
start HTML, an image or a link is an entity. JupyterLab puts formulas into the finished HTML, with their quotes, also
where a URL contains one (`replaceMath` in latex.ts of the same folder); so quotes are entities, too.
"""

from __future__ import annotations

import re

__all__ = ["code_span", "fence", "safe_line", "safe_markdown", "without_controls"]

# Control characters become their pictures, and half a surrogate pair, which a kernel could not send, U+FFFD.
_CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {
    0x7F: 0x2421,
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),
}
_OPENING = re.compile(r"([ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)(`{3,}|~{3,})[ \t]*([^`]*)")
_MARKUP = re.compile(r"""[<>&"`\[\]!*_~|\\$@#:{}]""")
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")
_BACKSLASH = "\\"
_DRAWN = ("mermaid",)  # JupyterLab draws these blocks, and a drawing can load images

_URL = r"""(?:https?://|mailto:)[^\s<>"'\\`()$]*(?:\([^\s<>"'\\`()$]*\)[^\s<>"'\\`()$]*){0,5}"""
# Lengths are limited where a search could otherwise take the square of the length of the text.
_PATTERN = re.compile(
    rf"""
    (?P<code>(?<![`\\])(?P<ticks>`+)(?!`)(?P<inner>[^\n]{{1,1000}}?)(?<!`)(?P=ticks)(?!`))
    | \]\((?P<link>{_URL})(?:[ ]"[^"\n]{{0,300}}")?\)
    | (?P<kept><br[ ]?/?> | </?su[bp]> | <{_URL}> | \]:(?=[ ]{_URL}(?:\s|$)))
    | \\?(?P<char>["<] | !(?=\[) | \](?=[(:]))
    | \\(?P<command>(?=href|url|require|includegraphics|html|style|class|cssId|data|unicode))
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FORMULA = re.compile(r"\$\$[^$`]{1,2000}\$\$|\$(?=[^\s$])[^$`\n]{1,500}(?<=[^\s$])\$")


def safe_markdown(text: str) -> str:
    """Return Markdown that looks as `text` does, and runs and loads nothing. An open block of code is closed."""
    lines = without_controls(text).split("\n")
    blocks: list[str] = []
    plain: list[str] = []
    position = 0
    while position < len(lines):
        found = _OPENING.fullmatch(lines[position])
        position += 1
        if found is None:
            plain.append(lines[position - 1])
            continue
        indent, mark, info = found.groups()
        code: list[str] = []
        while position < len(lines) and not _closes(lines[position], mark):
            code.append(_dedented(lines[position], len(indent)))
            position += 1
        position += 1
        blocks += [_safe_text("\n".join([*plain, indent.rstrip()])), fence("\n".join(code), info)]
        plain = []
    blocks.append(_safe_text("\n".join(plain)))
    return "\n\n".join(block.strip("\n") for block in blocks if block.strip())


def without_controls(text: str) -> str:
    """Return a text in which control characters are visible and have no effect. Line feeds and tabs stay."""
    return text.replace("\r\n", "\n").translate(_CONTROLS)


def fence(code: str, info: str = "") -> str:
    """Return a block of code; `info` starts with the name of its language."""
    longest = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
    language = _LANGUAGE.match(info)
    name = language[0] if language is not None and language[0].lower() not in _DRAWN else ""
    mark = "`" * (longest + 1)
    return f"{mark}{name}\n{code}\n{mark}"


def code_span(text: str) -> str:
    """Return a text as code within a line."""
    return f"<code>{_entities(' '.join(without_controls(text).split()))}</code>"


def safe_line(text: str) -> str:
    """Return a text as one line without any markup."""
    return _entities(" ".join(without_controls(text).split()))


def _entities(text: str) -> str:
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", text)


def _closes(line: str, mark: str) -> bool:
    found = line.strip()
    return len(found) >= len(mark) and set(found) == {mark[0]}


def _dedented(line: str, width: int) -> str:
    return line[min(width, len(line) - len(line.lstrip(" \t"))) :]


def _safe_text(text: str) -> str:
    def formula(found: re.Match[str]) -> str:
        return found[0].replace("<", r"\lt ")

    return _PATTERN.sub(_replacement, _FORMULA.sub(formula, text) if "<" in text else text)


def _replacement(found: re.Match[str]) -> str:
    if found["code"] is not None:
        return code_span(found["inner"])
    if found["link"] is not None:
        return f"]({found['link']})"
    if found["kept"] is not None:
        return found["kept"]
    return f"&#{ord(found['char'] or _BACKSLASH)};"
