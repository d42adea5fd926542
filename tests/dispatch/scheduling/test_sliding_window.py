"""The sum of a window, and the time at which it has room."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.dispatch.scheduling.sliding_window import Window


class Sent(msgspec.Struct, eq=False):
    at: float
    units: float


def test_there_is_room_when_enough_has_left_the_window() -> None:
    window = Window()
    for second in range(5):
        window.add(Sent(float(second), 10.0))
    assert window.room_at(50.0, 5.0, 60.0) == 5.0
    assert window.room_at(49.0, 5.0, 60.0) == 60.0
    assert window.room_at(25.0, 5.0, 60.0) == 62.0
    assert window.room_at(-7.0, 5.0, 60.0) == 64.0, "never is not an answer: when nothing else counts"
    assert window.room_at(-7.0, 64.0, 60.0) == 64.0


def test_one_that_does_not_go_counts_no_more() -> None:
    window = Window()
    sent = [Sent(1.0, 5.0), Sent(2.0, 5.0), Sent(3.0, 5.0)]
    for each in sent:
        window.add(each)
    window.remove(sent[1])
    window.remove(sent[1])
    assert window.used_at(3.0, 60.0) == 10.0
    window.forget(1.0)
    window.remove(sent[0])
    assert window.used_at(3.0, 60.0) == 5.0


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 50), st.sampled_from(["add", "change", "remove", "look"])),
        max_size=60,
    )
)
def test_it_agrees_with_a_plain_sum(steps: list[tuple[float, float, str]]) -> None:
    window, all_sent, now = Window(), list[Sent](), 0.0
    for number, units, act in steps:
        chosen: Any = all_sent[int(number) % len(all_sent)] if all_sent else None
        if act == "add":
            now += number / 10
            all_sent.append(Sent(now + units / 10, units))
            window.add(all_sent[-1])
        elif chosen is not None and act == "change":
            window.change(chosen, units)
            chosen.units = units
        elif chosen is not None and act == "remove":
            window.remove(chosen)
            all_sent.remove(chosen)
        window.forget(now - 20.0)
        for moment in (now, now + 7.0):
            plain = sum(each.units for each in all_sent if each.at > moment - 20.0)
            assert abs(window.used_at(moment, 20.0) - plain) < 1e-6
