"""Sentences of a text in pieces: how it is cut never matters, and nothing but white space is lost."""
# ruff: noqa: RUF001 - full stops and quotation marks of many languages

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.whole_text import cut
from lm_deluge import LLMClient
from lm_deluge.client.sentences import SentenceSplitter
from lm_deluge.errors import StreamConsumedError
from lm_deluge.simulator import Simulator


def sentences_of(pieces: list[str]) -> list[str]:
    splitter = SentenceSplitter()
    return [sentence for piece in pieces for sentence in splitter.feed(piece)] + splitter.close()


CASES = [
    ["One.", "Two!", "Three?", "And so on…", "Four"],
    ["Dr. Smith paid 3.14 dollars, e.g. for J. R. Tolkien vs. others."],
    ["It costs 1,000.50.", "Really?!", "Yes."],
    ["He said “No.”", "Then he left (by train).", "**Bold.**", "End"],
    ["It was the U.S. Army, approx. five men, etc. and so on.", "Fine."],
    ["Wait... what?", ["See https://a.example/b.html?c=d.", "."][0], "Now."],
    ["「すごい。」", "そう思う！", "本当？", "はい。"],
    ["你好。", "今天怎么样？", "很好！"],
]


@pytest.mark.parametrize("sentences", CASES)
def test_sentences_end_where_a_reader_ends_them(sentences: list[str]) -> None:
    blank = "" if sentences[0][0] in "「你" else " "
    text = blank.join(sentences)
    assert sentences_of([text]) == sentences
    assert sentences_of(list(text)) == sentences


def test_blocks_are_sentences_of_their_own() -> None:
    blocks = [
        "A heading without a stop",
        "First: a\nline that goes on.",
        "- one",
        ["- two.", ""][0],
        "1. First item",
        ["2. Second.", ""][0],
        '```python\nprint("Hi. There!")\n\n# a comment\n```',
        "| a | b |",
        "| 1. | 2 |",
        ["## A title.", ""][0],
        "Inline ```code``` stays.",
        "~~~\nnever closed. Yes",
    ]
    text = "\n\n".join(blocks[:2]) + "\n" + "\n".join(blocks[2:])
    assert sentences_of([text]) == blocks
    assert sentences_of(list(text)) == blocks


words = st.sampled_from(
    [
        "One",
        "two",
        ".",
        "! ",
        "? ",
        ". ",
        "…",
        "\n",
        "\n\n",
        " ",
        "Dr.",
        "3.1",
        "```",
        "\n```\n",
        "- ",
        "1. ",
        "。",
        "」",
        "'",
        "#",
    ]
)


@given(st.lists(words, max_size=25).map("".join), st.lists(st.integers(0, 60), max_size=8))
def test_the_cuts_do_not_matter_and_no_text_is_lost(text: str, positions: list[int]) -> None:
    whole = sentences_of([text])
    assert sentences_of(cut(text, positions)) == whole
    assert sentences_of(list(text)) == whole
    assert re.sub(r"\s", "", "".join(whole)) == re.sub(r"\s", "", text)
    assert all(sentence == sentence.strip() != "" for sentence in whole)


def test_a_sentence_leaves_once_the_next_one_starts() -> None:
    splitter = SentenceSplitter()
    assert [splitter.feed(piece) for piece in ("One", ".", " ", "T", "wo. Th")] == [[], [], [], ["One."], ["Two."]]


def test_time_grows_with_the_text() -> None:
    text = "No end. of it, " * 20_000  # one sentence of 300 kB, with a full stop in each line
    assert sentences_of([text[at : at + 5] for at in range(0, len(text), 5)]) == [text.strip()]


async def test_a_stream_yields_sentences() -> None:
    async with Simulator("One. Two is longer! Three") as sim, LLMClient("m", base_url=sim.base_url) as client:
        stream = client.stream("Hi")
        assert [sentence async for sentence in stream.sentences()] == ["One.", "Two is longer!", "Three"]
        assert stream.response.completion == "One. Two is longer! Three"
        with pytest.raises(StreamConsumedError):
            stream.sentences()
        async for sentence in client.stream("Hi").sentences():
            assert sentence == "One."
            break


def test_a_stream_without_asyncio_yields_sentences() -> None:
    with Simulator("One. Two.").start_in_thread() as sim:
        client = LLMClient("m", base_url=sim.base_url)
        assert list(client.stream_sync("Hi").sentences()) == ["One.", "Two."]
        client.close_sync()
