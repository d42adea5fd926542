import random
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.cli.render.escape import Escaper, visible, visible_line

FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\u200b\u2060-\u2064\ufeff\U000e0000-\U000e007f]"
)
INVISIBLE = (
    "\u00ad\u034f\u115f\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u202e\u2060\u2063\u2066\u3164"
    "\ufe00\ufe0f\ufeff\U000e0041\U000e0101"
)


def test_no_control_character_is_left_in_any_text():
    rng = random.Random(1)
    text = "".join(chr(rng.choice((rng.randrange(0x300), rng.randrange(sys.maxunicode + 1)))) for _ in range(200_000))
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    for one in (text, every):
        assert not FORBIDDEN.search(visible(one))
        assert not re.search(r"[\n\t]", visible_line(one))


def test_what_is_harmless_stays():
    text = "a\n\tb \u00e9 \u6f22 \U0001f469\u200d\U0001f467 \u05d0\u200e"
    assert visible(text) == text


def test_what_is_shown_can_be_read():
    assert visible("\x1b[31m\x07\x7f\x9b\u202e\ud800") == "\u241b[31m\u2407\u2421\\x9b\\u202e\\ud800"


@pytest.mark.parametrize("before", ["", "a", "\u200d", " "])
@pytest.mark.parametrize("char", INVISIBLE, ids=lambda char: f"{ord(char):x}")
def test_invisible_characters_are_shown(before, char):
    shown = visible(before + char)
    assert char not in shown.removeprefix(before)
    assert f"{ord(char):x}" in shown
    assert visible_line(before + char) == shown


def test_tags_that_spell_a_hidden_text_are_shown():
    hidden = "".join(chr(0xE0000 + ord(char)) for char in "ls")
    assert visible(f"ok{hidden}") == "ok\\U000e006c\\U000e0073"


WRITTEN = {
    "family": "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "eye in a bubble": "\U0001f441\ufe0f\u200d\U0001f5e8\ufe0f",
    "heart": "\u2764\ufe0f",
    "key cap": "1\ufe0f\u20e3",
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Hindi": "\u0915\u094d\u200d\u0937",
    "a mark after Hebrew": "\u05d0\u200f",
    "a variant of an ideograph": "\u845b\U000e0100",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_joiners_that_belong_to_the_writing_stay(text):
    assert visible(text) == text


@given(st.lists(st.text(st.sampled_from(INVISIBLE + "a\u2764\U0001f469\u0645\u845b1\n\x1b"), max_size=4), max_size=6))
def test_the_result_does_not_depend_on_the_cuts(pieces):
    escaper = Escaper()
    assert "".join(map(escaper.feed, pieces)) == visible("".join(pieces))
