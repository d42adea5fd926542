"""How many at once, and what an overloaded provider changes of it."""

import math

from lm_deluge.dispatch.scheduling.concurrency import ConcurrencyLimit


def test_places_are_taken_and_given_back() -> None:
    places = ConcurrencyLimit(2)
    places.take()
    assert places.has_room
    places.take()
    assert not places.has_room
    places.give_back()
    assert places.has_room
    places.give_back()
    places.give_back()
    assert places.used == 0


def test_without_a_limit_there_is_always_room() -> None:
    places = ConcurrencyLimit()
    for _ in range(1_000):
        places.take()
    places.succeeded()
    assert places.has_room
    assert places.allowed == math.inf


def test_overload_lowers_what_was_under_way_once() -> None:
    places = ConcurrencyLimit()
    for _ in range(100):
        places.take()
    for _ in range(100):
        places.overloaded(sent_at=0.0, now=5.0)
    assert places.allowed == 70.0
    places.overloaded(sent_at=6.0, now=7.0)
    assert places.allowed == 49.0


def test_one_place_is_always_left() -> None:
    places = ConcurrencyLimit(3)
    for step in range(20):
        places.overloaded(sent_at=step, now=step)
    assert places.allowed == 1.0
    assert places.has_room


def test_successes_raise_it_to_where_it_was() -> None:
    places = ConcurrencyLimit(10)
    for _ in range(10):
        places.take()
    places.overloaded(0.0, 0.0)
    assert places.allowed == 7.0
    for _ in range(8):
        places.succeeded()
    assert 8.0 <= places.allowed <= 8.2
    for _ in range(1_000):
        places.succeeded()
    assert places.allowed == 10.0
