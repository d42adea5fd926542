"""Functions that send a request with a fault and check the bytes of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from lm_deluge import errors
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Simulator
from lm_deluge.testing import decode_body
from simulator.raw_client import TEXT, Reply, ask

API = "openai-chat"

# Shorter and smaller than the defaults, to keep the tests fast.
QUICK: dict[str, str] = {
    "slow_first_byte": "seconds=0.06",
    "slow_first_token": "seconds=0.06",
    "buffered": "seconds=0.06",
    "drip": "seconds=0",
    "endless_pings": "seconds=0.01",
    "endless_empty_deltas": "seconds=0.01",
    "huge_line": "size=200000",
    "huge_event": "size=200000",
    "gzip_bomb": "size=3145728",
    "extra_headers": 'headers={"x-ratelimit-remaining-requests": "3"}',
}
ENDLESS = ("no_answer", "silence", "endless_pings", "endless_empty_deltas", "never_closes")

Check = Callable[[Reply], None]


class Checks:
    """One check for each fault of a table; the decorator `@checks("name", ...)` registers a function as a check."""

    def __init__(self, faults: Mapping[str, object]) -> None:
        self.faults = faults
        self.by_name: dict[str, Check] = {}

    def __call__(self, *names: str) -> Callable[[Check], Check]:
        def register(function: Check) -> Check:
            self.by_name.update(dict.fromkeys(names, function))
            return function

        return register

    async def run(self, name: str) -> None:
        """Request a stream with the fault and check the answer."""
        async with Simulator(TEXT) as sim:
            timeout = 0.15 if name in ENDLESS else 10.0
            reply = await ask(sim, spelled(name), timeout=timeout, stream_options={"include_usage": True})
            self.by_name[name](reply)
            assert sim.stats.faults == {name: 1}

    def assert_complete(self) -> None:
        assert set(self.by_name) == set(self.faults)


def spelled(name: str) -> str:
    return f"{name};{QUICK[name]}" if name in QUICK else name


def healthy(reply: Reply) -> APIResponse:
    assert (reply.status, reply.end, reply.is_whole) == (200, "fin", True)
    response = decode_body(API, reply.body)
    assert response.finish_reason == "stop"
    return response


def events_of(reply: Reply) -> list[dict]:
    """Return the JSON of every event except the end mark."""
    return [json.loads(line[6:]) for line in reply.body.split(b"\n") if line.startswith(b"data: {")]


def failing(reply: Reply, kind: type[errors.DelugeError]) -> errors.DelugeError:
    with pytest.raises(errors.DelugeError) as caught:
        decode_body(API, reply.body)
    assert type(caught.value) is kind
    return caught.value


def refused(reply: Reply, kind: type[errors.APIError]) -> errors.APIError:
    assert reply.is_whole
    error = OpenAIChat().classify_error(reply.status, dict(reply.headers), reply.body)
    assert type(error) is kind
    return error
