"""Where a continuation is joined: right, or not at all."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.continued import PERIODIC, PLAIN_TEXTS, PROSE, TEXTS, VARIANTS, breaks, in_pieces, rest_of
from lm_deluge.dispatch.attempts.splice import AnchorSplice, PrefillSplice, Splice, SpliceError, choose_anchor

BREAKS_OF_A_VARIANT = 1_000


def joined(shown: str, splice: Splice, pieces: Iterable[str], *, is_whole: bool = True) -> str:
    """Return the whole text, as it is shown piece by piece."""
    new = [splice.feed(piece) for piece in pieces]
    return shown + "".join(new) + splice.close(is_whole=is_whole)


def said(shown: str, anchor: str, *pieces: str) -> str:
    return joined(shown, AnchorSplice(shown, anchor), pieces)


def random_breaks(texts: dict[str, str], seed: str) -> list[tuple[str, int, random.Random]]:
    rng = random.Random(seed)
    chosen = []
    while len(chosen) < BREAKS_OF_A_VARIANT:
        text = rng.choice(list(texts.values()))
        at = rng.choice((1, len(text) - 1, *rng.choices(breaks(text), k=8)))
        if text[:at].strip():
            chosen.append((text, at, random.Random(rng.random())))
    return chosen


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_thousand_answers_are_whole(variant: str) -> None:
    """Of texts that do not repeat themselves each one is joined, whatever the model repeats of it."""
    refused = 0
    for text, at, rng in random_breaks(PLAIN_TEXTS, variant):
        shown = text[:at]
        anchor = choose_anchor(shown)
        rest = rest_of(text, shown, anchor, variant, rng)
        try:
            assert joined(shown, AnchorSplice(shown, anchor), in_pieces(rest, rng)) == text
        except SpliceError:
            refused += 1
    # Indented code may begin and end with the same blanks. Behind chatter 23 characters may be a chance, and words that
    # stand there twice are no seam.
    most_refused = {"anchor": 0, "start": 0, "more": 3, "less": 3, "chat": 200}
    assert refused <= most_refused[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_thousand_answers_that_repeat_themselves_are_whole_or_broken(variant: str) -> None:
    whole = 0
    for text, at, rng in random_breaks({**TEXTS, "again": PROSE * 2}, variant):
        shown = text[:at]
        anchor = choose_anchor(shown)
        rest = rest_of(text, shown, anchor, variant, rng)
        try:
            assert joined(shown, AnchorSplice(shown, anchor), in_pieces(rest, rng)) == text
            whole += 1
        except SpliceError:
            pass
    assert whole > BREAKS_OF_A_VARIANT / 2


@pytest.mark.parametrize("is_echoed", [False, True])
def test_a_thousand_answers_that_were_begun_for_the_model_are_whole(is_echoed: bool) -> None:
    for text, at, rng in random_breaks(TEXTS, f"prefill {is_echoed}"):
        shown = text[:at]
        sent = shown.rstrip()
        splice = PrefillSplice(shown, sent, is_echoed=is_echoed)
        assert joined(shown, splice, in_pieces(text if is_echoed else text[len(sent) :], rng)) == text


REPEATING = st.one_of(
    st.text(max_size=200),
    st.text("ab", max_size=80),
    st.text("ab \n", max_size=120),
    st.text("e\u0301\u0308\u200d👩🏽🇨 ", max_size=120),
    st.builds(
        lambda blocks, order: "".join(blocks[at % len(blocks)] for at in order),
        st.lists(st.text("abc \r\n", min_size=1, max_size=40), min_size=1, max_size=3),
        st.lists(st.integers(0, 5), max_size=12),
    ),
)


@given(text=REPEATING, data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_join_is_right_or_refused(text: str, data: st.DataObject) -> None:
    """Whatever the text, the break, what the model repeats of it, and how that is cut into pieces."""
    text = "." + text + "!"
    shown = text[: data.draw(st.integers(1, len(text)))]
    anchor = choose_anchor(shown)
    assert shown.endswith(anchor)
    assert not anchor[0].isspace()
    begin = data.draw(st.integers(0, max(0, len(shown) - 12)))
    chatter = data.draw(st.sampled_from(["", "Of course.\n\n", "Here: "]))
    rest = chatter + text[begin:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rest)), max_size=6)))
    pieces = [rest[start:end] for start, end in zip([0, *cuts], [*cuts, len(rest)], strict=True)]
    try:
        assert joined(shown, AnchorSplice(shown, anchor), pieces) == text
    except SpliceError:
        with pytest.raises(SpliceError):  # the pieces do not matter
            joined(shown, AnchorSplice(shown, anchor), rest)
    else:
        assert joined(shown, AnchorSplice(shown, anchor), rest) == text


@given(text=REPEATING, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_join_behind_given_words_is_right_or_refused(text: str, data: st.DataObject) -> None:
    text = "." + text + "!"
    shown = text[: data.draw(st.integers(1, len(text)))]
    sent = shown.rstrip()
    is_echoed = data.draw(st.booleans())
    splice = PrefillSplice(shown, sent, is_echoed=is_echoed)
    rest = text if is_echoed else text[len(sent) :]
    assert joined(shown, splice, rest) == text


@given(shown=st.text(min_size=1, max_size=60), rest=st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_whatever_the_model_says_nothing_else_happens(shown: str, rest: str) -> None:
    shown = "." + shown
    for splice in (AnchorSplice(shown, choose_anchor(shown)), PrefillSplice(shown, shown.rstrip())):
        try:
            whole = joined(shown, splice, rest)
        except SpliceError:
            continue
        assert whole.startswith(shown)
        assert rest.endswith(whole[len(shown) :])


SHOWN = "It was a bright cold day in April, and the clocks were striking thir"
ANCHOR = "cold day in April, and the clocks were striking thir"


def test_what_passes_is_not_held_back() -> None:
    splice = AnchorSplice(SHOWN, ANCHOR)
    assert splice.feed(ANCHOR) == ""
    assert not splice.is_sure
    assert splice.feed("t") == "t"
    assert splice.is_sure
    assert splice.cut == len(ANCHOR)
    assert splice.feed("een.") == "een."
    assert splice.close(is_whole=False) == ""


@pytest.mark.parametrize(
    "rest",
    [
        "teen.",  # no repeat at all
        "striking teen.",  # the words, but not to their end
        "clocks thirteen.",
        "king thirteen.",  # eleven characters may be a chance... and these are not what was shown
        ANCHOR[:20] + "!" + ANCHOR[20:] + "teen.",
        f'"{ANCHOR}" teen.',
        f"You want me to go on from {ANCHOR} on. {ANCHOR}teen.",
        f"{ANCHOR}\n\n{ANCHOR}teen.",
        f"You ended with {SHOWN[-20:]}.\n\n{ANCHOR}teen.",
        ANCHOR.upper() + "TEEN",
        "x" * 201 + " " + ANCHOR + "teen.",
        "I cannot help with that.",
        "",
        ANCHOR[:-1],
        "\n",
    ],
)
def test_no_seam_is_certain(rest: str) -> None:
    with pytest.raises(SpliceError):
        said(SHOWN, ANCHOR, *rest)
    with pytest.raises(SpliceError):
        said(SHOWN, ANCHOR, rest)


def test_chatter_may_hold_a_few_words_of_the_answer() -> None:
    shown = "Here is the rest of"
    with pytest.raises(SpliceError, match="did not repeat"):
        said(shown, shown, "Sorry! Here is the rest of it:\n\n the bread.")
    assert said(SHOWN, ANCHOR, f"Sorry! Here it is, day by day:\n\n{ANCHOR}teen.") == SHOWN + "teen."


def test_behind_chatter_the_words_stand_nowhere_else() -> None:
    """The first place may be one that came earlier in what was shown."""
    words = "and so the whole song begins again"
    shown = f"{words}, {'la ' * 250}{words}"
    with pytest.raises(SpliceError, match="did not repeat"):
        said(shown, words, f"Sure:\n{shown}!")


def test_the_least_overlap() -> None:
    assert said(SHOWN, ANCHOR, SHOWN[-12:], "teen.") == SHOWN + "teen."
    with pytest.raises(SpliceError, match="did not repeat"):
        said(SHOWN, ANCHOR, SHOWN[-11:], "teen.")


def test_an_answer_that_was_whole_but_for_its_end() -> None:
    assert said(SHOWN, ANCHOR, ANCHOR) == SHOWN
    assert joined("Yes.", PrefillSplice("Yes.", "Yes."), []) == "Yes."
    assert joined("Yes.\n", PrefillSplice("Yes.\n", "Yes."), ["\n"]) == "Yes.\n"


def test_a_limit_that_cuts_the_repeat_is_no_end() -> None:
    shown = "abcdefghijkl, then abcdefghijkl"
    rest = "abcdefghijkl"
    assert joined(shown, AnchorSplice(shown, shown), [rest]) == shown
    with pytest.raises(SpliceError, match="ended before"):
        joined(shown, AnchorSplice(shown, shown), [rest], is_whole=False)


def test_periodic_text_is_not_joined() -> None:
    shown = PERIODIC[:100]
    with pytest.raises(SpliceError, match="more than one position"):
        said(shown, choose_anchor(shown), PERIODIC[30:])


@pytest.mark.parametrize(
    ("shown", "rest", "whole"),
    [
        ("One. ", " Two.", "One. Two."),
        ("One. ", "Two.", "One. Two."),  # the blank was shown
        ("One.\n", "\n\nTwo.", "One.\n\nTwo."),
        ("One", " two.", "One two."),
        ("One", "", "One"),
    ],
)
def test_blanks_that_were_left_out_are_not_doubled(shown: str, rest: str, whole: str) -> None:
    assert joined(shown, PrefillSplice(shown, shown.rstrip()), rest) == whole
    assert joined(shown, PrefillSplice(shown, shown.rstrip()), [rest]) == whole


def test_other_blanks_are_no_seam() -> None:
    with pytest.raises(SpliceError, match="other white space"):
        joined("One.\n\n", PrefillSplice("One.\n\n", "One."), ["\n", "Two."])


def test_words_that_come_back_only_in_part_are_no_seam() -> None:
    with pytest.raises(SpliceError, match="then differs"):
        joined(SHOWN, PrefillSplice(SHOWN, SHOWN, is_echoed=True), [SHOWN[:30], "?"])
    with pytest.raises(SpliceError, match="ended within"):
        joined(SHOWN, PrefillSplice(SHOWN, SHOWN, is_echoed=True), [SHOWN[:30]])
    assert joined(SHOWN, PrefillSplice(SHOWN, SHOWN, is_echoed=True), ["teen."]) == SHOWN + "teen."


def test_anchors() -> None:
    assert choose_anchor(" T") == "T"
    assert choose_anchor(SHOWN) == "April, and the clocks were striking thir"
    # Words that stand elsewhere, too, are not enough.
    twice = (
        "She said: it was a bright cold day in April, a cold one. He said: it was a bright cold day in April, a cold"
    )
    assert choose_anchor(twice) == "He said: it was a bright cold day in April, a cold"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_anchor_begins_within_a_character(text: str) -> None:
    for at in breaks(text):
        if not text[:at].strip():
            continue
        anchor = choose_anchor(text[:at])
        before = text[: at - len(anchor)]
        assert anchor[0] not in "\u0301\u0308\u030a\u0303\u0302\u200d\ufe0f🏽🏿🏻🏼🏾"
        assert not before.endswith("\u200d")
        assert len(anchor) <= 400


@pytest.mark.parametrize("shown", ["ab" * 50_000, "".join("a" * n + "b" for n in range(440)), PROSE * 150])
def test_the_searches_through_a_long_text_never_turn_back(shown: str) -> None:
    """So all of them together read the text once. What is within what was shown is held."""
    splice = AnchorSplice(shown, choose_anchor(shown))
    places = []
    for at in range(0, len(shown) - 7, 7):
        assert splice.feed(shown[at : at + 7]) == ""
        places.append(splice._at)
    assert places == sorted(places)
