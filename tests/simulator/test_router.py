"""Every fault can be planned for every answer."""

from __future__ import annotations

import sys

import pytest

from lm_deluge.events import ResponseStarted, TextDelta
from lm_deluge.simulator import FAULTS, Script
from lm_deluge.simulator.http import Request
from lm_deluge.simulator.router import Router
from simulator.raw_client import chat

SCRIPTS = {
    "text": Script(text="Grüße an die 🌊"),
    "nothing": Script(text=""),
    "calls": Script(tool_calls=[("f", {"a": 1}), ("g", "")]),
    "reasoning": Script(text="", reasoning="Hm."),
    "refusal": Script(refusal="No."),
    "cut": Script(events=[ResponseStarted("x", "m"), TextDelta("half")]),
    "start only": Script(events=[ResponseStarted("x", "m")]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_suits_every_answer(name: str) -> None:
    for script in SCRIPTS.values():
        for stream in (True, False):
            request = Request("POST", "/v1/chat/completions", {}, {}, chat(stream=stream))
            plan, fault = Router(script, name).plan(request, number=1, port=1)
            assert fault is not None
            assert plan.encoded().headers


@pytest.mark.parametrize("module", ["brotli", "zstandard"])
def test_a_fault_whose_library_is_missing_is_answered_with_an_error(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name = {"brotli": "br", "zstandard": "zstd"}[module]
    plan, _ = Router(None, name).plan(Request("POST", "/v1/chat/completions", {}, {}, chat()), number=1, port=1)
    assert plan.status == 400
    assert b"this fault needs the package " + module.encode() in plan.body[0].data
