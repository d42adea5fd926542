"""How faults are chosen for requests, and how their parameters are checked."""

from __future__ import annotations

import re

import pytest

from lm_deluge import errors
from lm_deluge.errors import ConfigurationError
from lm_deluge.simulator import FAULTS, Fault, Simulator
from simulator.checks import failing, spelled
from simulator.raw_client import TEXT, ask


@pytest.fixture
async def sim() -> Simulator:
    async with Simulator(TEXT) as simulator:
        yield simulator


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"no_answer", "silence"}))
async def test_plain_answers_are_no_trouble(sim: Simulator, name: str) -> None:
    """A fault of streams does not change a plain answer, and no other fault prevents an end of it."""
    reply = await ask(sim, spelled(name), stream=False)
    assert reply.end in ("fin", "reset")


def test_every_fault_is_described() -> None:
    assert all(FAULTS.values())


async def test_parameters_choose_the_position(sim: Simulator) -> None:
    assert len((await ask(sim, "cut_chunk;after=0")).chunks) == 1
    assert len((await ask(sim, "cut_chunk; after=7")).chunks) == 1 + 7
    torn = await ask(sim, "cut_chunk;after=1;in_frame=true")
    assert len(torn.chunks) == 1 + 1 + 1
    assert not torn.body.endswith(b"\n\n")
    # After the last delta, but always before the finish.
    late = await ask(sim, "clean_truncation;after=10000")
    assert failing(late, errors.TruncatedError).partial.completion == TEXT


async def test_a_status_with_everything_of_its_own() -> None:
    fault = Fault("status", status=418, headers={"x-pot": "tea"}, body="short and stout", content_type="text/plain")
    async with Simulator(faults=fault) as sim:
        reply = await ask(sim)
    assert (reply.status, reply.header("x-pot"), reply.body) == (418, "tea", b"short and stout")


async def test_faults_are_used_up_one_by_one() -> None:
    async with Simulator(TEXT, faults=["status_429", None, Fault("status_503")]) as sim:
        statuses = [(await ask(sim)).status for _ in range(5)]
        assert statuses == [429, 200, 503, 200, 200]
        assert [request.fault for request in sim.requests] == ["status_429", None, "status_503", None, None]


async def test_one_fault_is_for_every_request() -> None:
    async with Simulator(TEXT, faults="status_500") as sim:
        assert [(await ask(sim)).status for _ in range(3)] == [500, 500, 500]


async def test_a_request_chooses_by_model_without_using_up_the_list() -> None:
    async with Simulator(TEXT, faults=["status_429"]) as sim:
        assert (await ask(sim, model="simulator/status_503")).status == 503
        assert (await ask(sim, "none")).status == 200
        assert (await ask(sim)).status == 429


async def test_an_unknown_fault_is_refused_with_its_reason(sim: Simulator) -> None:
    assert (await ask(sim, "gremlins")).status == 400
    assert (await ask(sim, model="simulator/gremlins")).status == 404
    assert b"fault silence: seconds='soon' is not a valid value" in (await ask(sim, "silence;seconds=soon")).body


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("gremlins", {}, "there is no fault 'gremlins'. Known: split_utf8, "),
        ("reset", {"wher": 3}, "fault reset has no parameter 'wher'. It has: after, in_frame."),
        ("bom", {"after": 3}, "fault bom has no parameter 'after'. It has: none."),
        ("reset", {"after": "3"}, "fault reset: after='3' is not a valid value. The default is 3."),
        ("drip", {"seconds": None}, "fault drip: seconds=None is not a valid value. The default is 0.05."),
        ("status", {"message": 3}, "fault status: message=3 is not a valid value. The default is None."),
    ],
)
def test_a_fault_that_cannot_be_is_refused(name: str, params: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        Fault(name, **params)


def test_faults_are_values() -> None:
    assert Fault("reset", after=3) == Fault("reset") == Fault.parse("reset; after=3")
    assert Fault.parse("status;status=418;body=hot;headers={}") == Fault("status", status=418, body="hot")
    assert Fault.parse("none") is None
    with pytest.raises(AttributeError):
        Fault("reset").name = "bom"
