"""The limit of requests in flight, and how an overloaded provider lowers it."""

import math

from lm_deluge.dispatch.scheduling.local_limiter import ConcurrencyLimit


def test_places_are_taken_and_given_back() -> None:
    places = ConcurrencyLimit(2)
    places.acquire()
    assert places.has_room
    places.acquire()
    assert not places.has_room
    places.release()
    assert places.has_room
    places.release()
    places.release()
    assert places.used == 0


def test_without_a_limit_there_is_always_room() -> None:
    places = ConcurrencyLimit()
    for _ in range(1_000):
        places.acquire()
    places.on_success()
    assert places.has_room
    assert places.allowed == math.inf


def test_overload_lowers_what_was_under_way_once() -> None:
    places = ConcurrencyLimit()
    for _ in range(100):
        places.acquire()
    for _ in range(100):
        places.on_overload(sent_at=0.0, now=5.0)
    assert places.allowed == 70.0
    places.on_overload(sent_at=6.0, now=7.0)
    assert places.allowed == 49.0


def test_one_place_is_always_left() -> None:
    places = ConcurrencyLimit(3)
    for step in range(20):
        places.on_overload(sent_at=step, now=step)
    assert places.allowed == 1.0
    assert places.has_room


def test_successes_raise_it_to_where_it_was() -> None:
    places = ConcurrencyLimit(10)
    for _ in range(10):
        places.acquire()
    places.on_overload(0.0, 0.0)
    assert places.allowed == 7.0
    for _ in range(8):
        places.on_success()
    assert 8.0 <= places.allowed <= 8.2
    for _ in range(1_000):
        places.on_success()
    assert places.allowed == 10.0
