"""An observer that keeps what it is notified of, and clients of a simulator with it."""

from __future__ import annotations

import functools
from typing import Any

from lm_deluge import LLMClient
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Simulator
from lm_deluge.telemetry import CallObserver, ObservedAttempt, ObservedCall, Observer, outcome_of


class CallRecord(CallObserver):
    def __init__(self, call: ObservedCall) -> None:
        self.call = call
        self.steps: list[Any] = []
        self.events = 0
        self.gaps: list[float] = []
        self.waits: list[float] = []
        self.first_s: float | None = None
        self.response: APIResponse | None = None

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.steps.append("waited")

    def attempt_started(self, attempt: ObservedAttempt) -> None:
        self.steps.append((attempt.number, attempt.model, attempt.reason))

    def attempt_failed(self, attempt: ObservedAttempt, error: DelugeError) -> None:
        self.steps.append((attempt.number, type(error).__name__))

    def first_token(self, seconds: float) -> None:
        self.first_s = seconds
        self.steps.append("first token")

    def read(self, events: int, seconds: float) -> None:
        self.events += events
        self.gaps.append(seconds)

    def ended(self, response: APIResponse) -> None:
        self.response = response
        self.steps.append(outcome_of(response))


class Recorder(Observer):
    def __init__(self) -> None:
        self.calls: list[CallRecord] = []

    def call_started(self, call: ObservedCall) -> CallObserver:
        self.calls.append(CallRecord(call))
        return self.calls[-1]

    @property
    def only(self) -> CallRecord:
        (call,) = self.calls
        return call


def client_of(sim: Simulator, *observers: Observer, model: Any = "gpt-4o", **options: Any) -> LLMClient:
    """Return a client whose pauses between attempts take no time."""
    return LLMClient(
        model, base_url=sim.base_url, api_key="sk-very-secret", progress="none", observers=observers, **options
    )


def without_pauses(client: LLMClient) -> LLMClient:
    client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
    return client
