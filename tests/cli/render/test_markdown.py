"""Markdown that grows: any cut, the same rows; nothing lost; nothing wider than the screen."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_deluge.cli.render.lines import Row, Run, Wrapper, cells_of, paint, row_of, without_colours
from lm_deluge.cli.render.markdown import Markdown

SAMPLE = """\
# A **title**

A *long* paragraph with `code`, **bold text that goes on for a while and wraps**, a [link](https://example.com/a_b),
2 * 3 * 4 = 24, snake_case_name, ~~gone~~, \\(a_b\\) and a **marker that never ends.

- one
  - two, with a long text that has to wrap somewhere, so that one sees where its second row begins
  - [x] done
  - [ ] open
10. ten \u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587\u306f\u3069\u3053\u3067\u3082\u6298\u308a\u8fd4\u3059

> quoted

```python
def f(n: int) -> str:
    \"\"\"Say it.

    Twice.
    \"\"\"
    return "x" * n  # and a comment that is longer than most terminals are wide, or so one would think at least
```

| Name | Meaning | Price |
|------|:-------:|------:|
| a | the **first** letter, and a text that is too long for one row of the table | 1.00 |
| b\\|c | `x|y` | 10.00 |

---
| no table
end"""

PIECES = st.sampled_from(
    [
        "a",
        "word ",
        "*",
        "**",
        "_",
        "`",
        "```",
        "~~",
        "[",
        "](",
        ")",
        "!",
        "\\",
        "\n",
        "\n\n",
        "# ",
        "- ",
        "1. ",
        "> ",
        "| ",
        "|",
        "|---|\n",
        "---",
        " ",
        "\t",
        "\u6f22",
        "\U0001f600",
        "\u200d",
        "\ufe0f",
        "x" * 30,
        "```py\n",
    ]
)


def text_of(row: Row) -> str:
    return "".join(run.text for run in row)


def render(pieces: list[str], width: int, height: int = 24) -> list[Row]:
    markdown = Markdown(width, height)
    rows = []
    for piece in pieces:
        rows += markdown.feed(piece)
        live = markdown.live()
        assert all(cells_of(text_of(row)) <= width for row in live)
        assert len(live) <= height + 4
    return rows + markdown.finish()


def texts(text: str, width: int = 60) -> list[str]:
    return [text_of(row).rstrip() for row in render([text], width)]


@pytest.mark.parametrize("width", [100, 79, 39, 12])
def test_the_cuts_make_no_difference(width):
    whole = [paint(row) for row in render([SAMPLE], width)]
    for seed in range(20):
        rng = random.Random(seed)
        pieces, position = [], 0
        while position < len(SAMPLE):
            size = rng.randint(1, 9)
            pieces.append(SAMPLE[position : position + size])
            position += size
        assert [paint(row) for row in render(pieces, width)] == whole


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=60), st.integers(8, 60))
def test_any_text_fits_and_keeps_its_letters(pieces, width):
    rows = render(pieces, width)
    assert all(cells_of(text_of(row)) <= width for row in rows)
    shown = "".join(text_of(row) for row in rows)
    for sign in "aw\u6f22\U0001f600":
        assert shown.count(sign) == "".join(pieces).count(sign)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("**bold** and *it*", ["bold and it"]),
        ("2 * 3 * 4", ["2 * 3 * 4"]),
        ("**never closed", ["**never closed"]),
        ("`never closed", ["`never closed"]),
        ("snake_case_name __init__", ["snake_case_name init"]),
        ("`a*b*c`", ["a*b*c"]),
        ("`` a`b ``", ["a`b"]),
        ("\\*not it\\* \\(x_1\\)", ["*not it* \\(x_1\\)"]),
        ("[text](https://a.b/c)", ["text (https://a.b/c)"]),
        ("[not a link]", ["[not a link]"]),
        ("- a\n  * b\n1) c", ["\u2022 a", "  \u2022 b", "1) c"]),
        ("- [x] a\n- [ ] b", ["\u2611 a", "\u2610 b"]),
        ("#hashtag\n## Title", ["#hashtag", "Title"]),
        ("> a\n>> b", ["\u2502 a", "\u2502 \u2502 b"]),
        ("```\n# no title\n```", ["```", "# no title", "```"]),
        ("| a | b |\n|---|--:|\n| 1 | 2 |", ["a \u2502 b", "\u2500\u2500\u253c\u2500\u2500", "1 \u2502 2"]),
        ("| a\ntext", ["| a", "text"]),
        ("|a|\n|b|", ["|a|", "|b|"]),
        ("a\n\nb", ["a", "", "b"]),
    ],
)
def test_what_is_shown(source, shown):
    assert texts(source) == shown


def test_headings_are_bold_and_code_is_coloured():
    assert "\x1b[1;36m" in paint(render(["## Title\n"], 40)[0])
    assert "\x1b[35mdef" in paint(render(["```python\ndef f(): pass\n```"], 40)[1])
    assert paint(render(["```nonsense\ndef f(): pass\n```"], 40)[1]) == "def f(): pass"


def test_what_is_open_is_shown_as_it_will_be():
    markdown = Markdown(40, 24)
    markdown.feed("so **very bo")
    assert markdown.live() == [[Run("so "), Run("very bo", "1")]]
    markdown.feed("ld**")
    assert text_of(markdown.live()[0]) == "so very bold"


def test_a_long_table_keeps_its_rows_bounded():
    lines = ["| n | text |\n", "|---|---|\n", *(f"| {n} | row {n} |\n" for n in range(200))]
    rows = render(lines, 40, height=10)
    assert len(rows) == 202
    assert text_of(rows[-1]).strip().endswith("row 199")


def test_without_colours_what_is_bold_stays_bold():
    assert without_colours(Run("x", "1;3;36")) == Run("x", "1;3")


def test_words_are_wrapped_with_their_indentation():
    wrapper = Wrapper(12, hang=row_of("  "))
    rows = [*wrapper.feed(Run("one two three four")), *wrapper.rest()]
    assert [text_of(row) for row in rows] == ["one two", "  three four"]
