import pytest

from lm_deluge.cli.render.code_block import FirstCodeBlock

CASES = {
    "one": ("Here:\n```python\nprint(1)\n\nprint(2)\n```\nDone.", "print(1)\n\nprint(2)\n"),
    "the first of two": ("```\na\n```\n```\nb\n```\n", "a\n"),
    "tildes": ("~~~sh\nls ```\n~~~\n", "ls ```\n"),
    "a longer fence": ("````md\n```\na\n```\n````\n", "```\na\n```\n"),
    "in a list": ("- so:\n\n  ```\n  if x:\n      y\n\n  ```\n", "if x:\n    y\n\n"),
    "with CR LF": ("```\r\na\r\n```\r\nb", "a\r\n"),
    "cut off": ("```\na\nb", "a\nb"),
    "empty": ("```\n```\n", ""),
    "inline code is none": ("Use ```x``` here", "Use ```x``` here"),
    "without a block": ("print(1)\nok", "print(1)\nok"),
    "blank at first": ("\n\n```a b\nc\n```", "c\n"),
}


@pytest.mark.parametrize(("text", "code"), CASES.values(), ids=CASES)
def test_the_first_block_at_every_cut(text, code):
    for cut in range(len(text) + 1):
        block = FirstCodeBlock()
        assert block.feed(text[:cut]) + block.feed(text[cut:]) + block.finish() == code
    whole = FirstCodeBlock()
    assert "".join(map(whole.feed, text)) + whole.finish() == code
    assert whole.is_found == (code != text)


def test_lines_are_delivered_as_they_arrive():
    block = FirstCodeBlock()
    assert [block.feed(piece) for piece in ("text\n```\n", "a\nb", "\n")] == ["", "a\n", "b\n"]
