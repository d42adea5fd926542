"""Answers that break off, and a model that goes on with them: what the tests of `on_break="continue"` share."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from lm_deluge.dispatch.attempts.continuation import INSTRUCTION

PROSE = """\
The river had risen in the night, and by morning the lower fields lay under water. Nobody in the village had seen
anything like it since the winter of 1953. Anna stood at the gate, counted the sheep on the dyke and came to forty-one.
"There should be forty-three," she said. Her brother only shrugged; he had been awake since four.

What could be saved had been carried upstairs: the radio, two sacks of flour, a clock that no longer went. The rest
would have to swim. At noon the first boat came round the bend, and in it sat a man with a list who wanted to know
how many of them there were, and whether any of them was ill."""

MARKED = """\
Grüße aus Genève! Die Straße nach Łódź ist gesperrt, naïve Fußgänger müssen über Ærøskøbing, sagt man.\
 Ångström maß 0,1 nm, „wirklich?“, fragte Şule. Ja: cafe\u0301, re\u0301sume\u0301, Zu\u0308rich,\
 a\u030angstro\u0308m, n\u0303o und e\u0302tre stehen hier zerlegt.\
\u00a0Zwischen den Wörtern auch einmal\u2003ein Geviert\u2028und ein\
 Zeilentrenner. Привет, мир! Πάντα ῥεῖ καὶ οὐδὲν μένει. שלום עולם, مرحبا بالعالم.\u200f Ende der Aufzählung, Punkt."""

EMOJI = """\
Who came? 👩‍👩‍👧‍👦 came, then 🧑🏽‍🚀 and 🏳️‍🌈, later 🇨🇭🇩🇪🇯🇵 in that order;\
 👍🏿👍🏻👍 followed. The cat 🐈‍⬛ slept ☀️ all day.\
 Score: 3️⃣:2️⃣ after 🥅🥅🥅. ❤️‍🔥 was the word of the evening, 🙂🙃🙂 the mood,\
 and 🫱🏼‍🫲🏾 the end of it. Nobody saw 🐉 leave."""

CJK = """\
昔々、ある所にお爺さんとお婆さんが住んでいました。お爺さんは山へ柴刈りに、お婆さんは川へ洗濯に行きました。すると、大きな桃が\
流れてきて、お婆さんは驚いて拾い上げ、家へ持ち帰りました。切ってみると中から元気な男の子が飛び出し、二人はその子を桃太郎と名付けて\
大切に育てました。月日が経ち、逞しくなった桃太郎は鬼ヶ島へ向かうと言い、吉備団子を腰に下げて旅立ちました。"""

CRLF = """\
HTTP/1.1 200 OK\r\nDate: Mon, 27 Jul 2026 12:28:53 GMT\r\nServer: Apache/2.4\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-Length: 88\r\nVary: Accept-Encoding\r\n\r\nfirst line of the body\r\n\r\n\r\n\
\tsecond line, behind two empty ones\r\n\
third line \r\n fourth line, with blanks around\r\n\x0b\x0cfifth\r\n"""

CODE = '''\
Here is the function:

```python
def merge(left: list[int], right: list[int]) -> list[int]:
    """Merge two sorted lists."""
    merged: list[int] = []
    at = to = 0
    while at < len(left) and to < len(right):
        if left[at] <= right[to]:
            merged.append(left[at])
            at += 1
        else:
            merged.append(right[to])
            to += 1
    merged.extend(left[at:])
    merged.extend(right[to:])
    return merged


if __name__ == "__main__":
    assert merge([1, 3], [2]) == [1, 2, 3]
    assert merge([], [2]) == [2]
```

It takes time in proportion to both lengths.
'''

TABLE = "| n | n squared | n cubed |\n|---|---|---|\n" + "".join(f"| {n} | {n * n} | {n**3} |\n" for n in range(1, 25))

REFRAIN = """\
Row, row, row your boat, gently down the stream,
merrily, merrily, merrily, merrily, life is but a dream!

"""
SONG = REFRAIN.join(
    ("If you see a crocodile, don't forget to scream!\n", "Here we are at sea again.\n", "Home we go.\n", "")
)

PERIODIC = "ha " * 60 + "ho!"

PLAIN_TEXTS = {"prose": PROSE, "marked": MARKED, "emoji": EMOJI, "cjk": CJK, "crlf": CRLF, "code": CODE}
REPETITIVE_TEXTS = {"table": TABLE, "song": SONG, "periodic": PERIODIC}
TEXTS = {**PLAIN_TEXTS, **REPETITIVE_TEXTS}

VARIANTS = ("anchor", "more", "start", "chat", "less")

_ANCHOR = re.compile(re.escape(INSTRUCTION).replace(re.escape("{}"), "(.*)"), re.DOTALL)


def anchor_in(told: str) -> str | None:
    """Return the words that a message asks the model to begin with, None where it does not."""
    found = _ANCHOR.fullmatch(told)
    return found and found[1]


def rest_of(whole: str, shown: str, anchor: str, variant: str, rng: random.Random) -> str:
    """Return what a model says that was told to repeat the anchor and to go on, and does so more or less."""
    assert whole.startswith(shown)
    assert shown.endswith(anchor)
    begins = len(shown) - len(anchor)
    if variant == "more":
        begins = rng.randint(0, begins)
    elif variant == "start":
        begins = 0
    elif variant == "less":
        begins = rng.randint(begins, max(begins, len(shown) - 12))
    chatter = "Sorry about that! Here is the rest of my answer:\n\n" if variant == "chat" else ""
    return chatter + whole[begins:]


def in_pieces(text: str, rng: random.Random) -> Iterator[str]:
    """Cut a text as a stream might."""
    at = 0
    while at < len(text):
        end = at + rng.choice((1, 2, 4, 4, 5, 7, 60))
        yield text[at:end]
        at = end


def breaks(text: str) -> range:
    """Return where a stream may break: behind the first character, before the last, everywhere in between."""
    return range(1, len(text))
