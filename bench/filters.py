"""CPU time of the filters for each delta of an answer, and how it grows with the length of the answer.

Compare the ratios; absolute times depend on the machine. A growth of 1.0 means time in proportion to the length.
"""

import random
import time
from collections.abc import Sequence

from lm_deluge.events import Event, TextDelta
from lm_deluge.filters import ReasoningTags, Redact, StopAt
from lm_deluge.filters.answer_filter import AnswerFilter
from lm_deluge.filters.compiled import compile_filters
from lm_deluge.filters.rules import Filter
from lm_deluge.response import ResponseBuilder

DELTAS = 20_000  # 100 kB of text, a long answer
GROWTH = 8  # times as long
TURNS = 5  # the best of five counts, as interference only ever adds time
WORDS = (
    *("the", "quick", "brown", "Engine", "of", "sky", "seven", "keys", "Ends", "here,", "so", "we", "think", "that"),
    *("every", "letter", "counts", "in", "this", "line"),
)

FILTERS: dict[str, list[Filter]] = {
    "none": [],
    "one literal": [StopAt("<END>")],
    "one frequent literal": [StopAt("the end")],
    "ten literals": [StopAt(*[f"{word}!!" for word in WORDS[:10]])],
    "one pattern": [Redact(r"sk-[A-Za-z0-9]{20,}", "[key]", max_length=80)],
    "an e-mail address": [Redact(r"[\w.+-]+@[\w-]+\.[\w.]+", "[mail]", max_length=120)],
    "tags, literal, pattern": [
        ReasoningTags(),
        StopAt("<END>"),
        Redact(r"sk-[A-Za-z0-9]{20,}", "[key]", max_length=80),
    ],
}


def deltas(count: int) -> list[Event]:
    rng = random.Random(1)
    return [TextDelta(f" {rng.choice(WORDS)}") for _ in range(count)]


def measure(filters: Sequence[Filter], events: list[Event]) -> float:
    """Return the CPU seconds for reads of one delta each, as a live stream has them."""
    compiled, best = compile_filters(filters), float("inf")
    for _ in range(TURNS):
        answer_filter = None if compiled is None else AnswerFilter(compiled)
        builder = ResponseBuilder()
        start = time.process_time()
        for event in events:
            ready = [event] if answer_filter is None else answer_filter.feed([event])
            if answer_filter is not None:
                builder.withheld, builder.is_holding = answer_filter.withheld, answer_filter.is_holding
            builder.add_all(ready)
        best = min(best, time.process_time() - start)
    return best


def filters() -> None:
    """Print the CPU time for each delta."""
    short, long = deltas(DELTAS), deltas(DELTAS * GROWTH)
    print(f"\nfilters over {DELTAS:,} deltas: CPU per delta, and growth over an answer {GROWTH} times as long")
    for name, chosen in FILTERS.items():
        seconds = measure(chosen, short)
        growth = measure(chosen, long) / seconds / GROWTH
        print(f"  {name:24} {seconds / DELTAS * 1e6:6.2f} us   growth {growth:4.2f}")


if __name__ == "__main__":
    filters()
