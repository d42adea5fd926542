import random
import re
import sys

from lm_deluge.cli.render.escape import visible, visible_line

FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
