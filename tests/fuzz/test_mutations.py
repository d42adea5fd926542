"""Mutated bodies of every wire API: no foreign exception, no false success, work linear in the size.

Each input depends on the seed, the API and its number only, so that a failure, which names them, can be repeated:
`DELUGE_FUZZ_SEED=... make soak`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

import cuts
import recordings
from fuzz.bodies import APIS, Body, Frame, bodies, error_frames, first_terminal, is_terminal
from fuzz.checks import call_of, check, decode
from fuzz.mutations import mutated
from lm_deluge.errors import APIError

SEED = int(os.environ.get("DELUGE_FUZZ_SEED") or (random.SystemRandom().getrandbits(32) if recordings.IS_SOAK else 1))
COUNT = 10_000 if recordings.IS_SOAK else 40
"""Inputs of each API: together 100,000 in `make soak`, and less than five seconds in `make test`."""

# CPU time of a body that is four times as large, relative to the smaller one: 4 if linear, 16 if quadratic.
MOST_RATIO = 10
SMALL = 60_000  # bytes: some milliseconds, so that the clock's resolution does not matter


@pytest.fixture(scope="module", autouse=True)
def _seed_is_shown(request: pytest.FixtureRequest) -> None:
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if recordings.IS_SOAK and reporter is not None:
        reporter.write_line(f"seed of the mutations: DELUGE_FUZZ_SEED={SEED}")


@pytest.mark.skipif(bool(recordings.names("openai-chat")), reason="there are recordings")
def test_recordings_are_mutated_too() -> None:
    pytest.skip(recordings.REASON)


def inputs(api: str, kind: str, count: int) -> Iterator[tuple[str, random.Random, Body]]:
    """Yield the name of each input, its dice, and the body to mutate."""
    for number in range(count):
        dice = random.Random(f"{SEED} {api} {kind} {number}")
        yield f"seed {SEED}, {api}, {kind} {number}", dice, dice.choice(bodies(api))


class InputError(AssertionError):
    """An input that fails a check, with its bytes."""

    def __init__(self, name: str, body: Body, data: bytes, error: BaseException) -> None:
        super().__init__(f"{name} ({body.name}): {type(error).__name__}: {error}\n{data!r}")


@pytest.mark.timeout(7_200 if recordings.IS_SOAK else 120)
@pytest.mark.parametrize("api", APIS)
def test_any_body_is_read_or_refused(api: str) -> None:
    call = call_of(api)
    for name, dice, body in inputs(api, "mutation", COUNT):
        data = mutated(body, dice)
        try:
            response, error = check(call, [data])
            if dice.random() < 0.1:
                pieces = cuts.at_random(data, dice.randrange(1_000), dice.choice((1, 7, 300)))
                response_of_pieces, error_of_pieces = check(call, pieces)
                assert response_of_pieces.content == response.content
                assert str(error_of_pieces) == str(error)
        except Exception as caught:
            raise InputError(name, body, data, caught) from caught


def streams(api: str, kind: str, count: int) -> Iterator[tuple[str, random.Random, Body, int]]:
    """Yield bodies of complete streams, each with the number of the frame that completes it."""
    for name, dice, body in inputs(api, kind, count):
        terminal = None if body.is_document else first_terminal(body)
        if terminal is not None:
            yield name, dice, body, terminal


@pytest.mark.timeout(1_800 if recordings.IS_SOAK else 120)
@pytest.mark.parametrize("api", APIS)
def test_a_stream_without_its_end_is_no_success(api: str) -> None:
    call = call_of(api)
    for name, dice, body, terminal in streams(api, "end", COUNT // 10):
        rest = tuple(frame for frame in body.frames if not is_terminal(api, frame))
        endless = body._replace(frames=dice.choice((rest, body.frames[:terminal]))).bytes
        for data in (endless, endless[: dice.randint(0, len(endless))]):
            _, error = check(call, [data])
            assert error is not None, f"{name} ({body.name}): {data!r}"


@pytest.mark.timeout(1_800 if recordings.IS_SOAK else 120)
@pytest.mark.parametrize("api", APIS)
def test_an_error_before_the_end_is_an_error(api: str) -> None:
    call = call_of(api)
    for name, dice, body, terminal in streams(api, "error", COUNT // 10):
        place = dice.randint(0, terminal)
        data = body._replace(frames=(*body.frames[:place], *error_frames(api), *body.frames[place:])).bytes
        _, error = check(call, [data])
        assert isinstance(error, APIError), f"{name} ({body.name}): {data!r}"


@pytest.mark.parametrize("api", APIS)
def test_a_document_that_is_cut_is_no_success(api: str) -> None:
    call = call_of(api)
    for body in bodies(api):
        if body.is_document:
            data = body.bytes.rstrip()
            for position in range(0, len(data), 1 if recordings.IS_SOAK else 41):
                assert check(call, [data[:position]])[1] is not None, data[:position]


def cpu_time(api: str, data: bytes) -> float:
    """Return the smallest CPU time of three runs: other processes and the garbage collector only add to it."""
    call, times = call_of(api), []
    for _ in range(3):
        start = time.process_time()
        decode(call, [data])
        times.append(time.process_time() - start)
    return min(times)


def enlarged(body: Body, terminal: int, size: int, dice: random.Random) -> bytes:
    """Return a body of about `size` bytes: frames of the content are repeated, in order, or one of them."""
    start, content, end = body.frames[:1], body.frames[1:terminal], body.frames[terminal:]
    repeated: tuple[Frame, ...] = content if dice.random() < 0.5 else (dice.choice(content),)
    unit = len(body._replace(frames=repeated).bytes)
    return body._replace(frames=start + repeated * (1 + size // unit) + end).bytes


@pytest.mark.timeout(1_800 if recordings.IS_SOAK else 120)
@pytest.mark.parametrize("api", APIS)
def test_the_time_is_linear_in_the_number_of_frames(api: str) -> None:
    for name, dice, body, terminal in streams(api, "size", COUNT // 100 + 3):
        if terminal > 1:
            seed = dice.random()
            small, large = (enlarged(body, terminal, size, random.Random(seed)) for size in (SMALL, 4 * SMALL))
            ratio = cpu_time(api, large) / cpu_time(api, small)
            assert ratio < MOST_RATIO, f"{name} ({body.name}): {ratio:.1f}"
