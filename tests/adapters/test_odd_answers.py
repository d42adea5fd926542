"""Responses with many values of undocumented types: decoding yields events or a `DelugeError`."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cuts
import recordings
from grammar import check_grammar
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event
from lm_deluge.testing import decode_events, encode_events
from mirrors import find_mirrors

APIS = ["cohere-v2", "mistral-chat", "ollama-chat"]
MIRRORS = find_mirrors()
MORE = 20 if recordings.IS_SOAK else 1
SETTINGS = settings(max_examples=60 * MORE, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ODD = [None, True, 0, -1, 2.5, "", "x", [], {}, [None], ["x"], [[]], [{}], {"text": 5}, {"type": ["x"]}, 10**30]


def outcome(api: str, chunks: list[bytes]) -> tuple[list[Event], str | None]:
    """Return the events, and the text of the error or None. Exceptions other than `DelugeError` are not caught."""
    events: list[Event] = []
    try:
        for event in decode_events(api, chunks):
            events.append(event)  # noqa: PERF402 - events before the error are kept
    except DelugeError as error:
        check_grammar(events, is_complete=False)
        return events, f"{type(error).__name__}: {error}"
    check_grammar(events)
    return events, None


def with_odd_values(value: object, dice: random.Random) -> object:
    """Return JSON in which some values have undocumented types, or are missing."""
    if dice.random() < 0.12:
        return dice.choice(ODD)
    if isinstance(value, list):
        return [with_odd_values(item, dice) for item in value]
    if isinstance(value, dict):
        return {key: with_odd_values(item, dice) for key, item in value.items() if dice.random() > 0.05}
    return value


def odd_line(line: bytes, dice: random.Random) -> bytes:
    head, brace, rest = line.partition(b"{")
    if not brace:
        return line
    return head + json.dumps(with_odd_values(json.loads(brace + rest), dice), ensure_ascii=False).encode()


@pytest.mark.parametrize("api", APIS)
@given(data=st.data(), dice=st.randoms(use_true_random=False))
@SETTINGS
def test_values_of_odd_types(api: str, data: st.DataObject, dice: random.Random) -> None:
    body = b"".join(encode_events(api, data.draw(MIRRORS[api])))
    odd = b"\n".join(odd_line(line, dice) for line in body.split(b"\n"))
    assert outcome(api, cuts.at_random(odd, dice.randrange(100), 50)) == outcome(api, [odd])
