"""The hooks of a call that is a loop: a journal sees one call with one request in flight, from its first to its end."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lm_deluge.dispatch.call import CallSpec
from lm_deluge.response import APIResponse

__all__ = ["RoundHooks"]


class RoundHooks:
    """Passes the attempts of the first round to the hooks of a call, and the failure of a later round as its last.

    A journal asks for the whole loop again after a crash: the attempt that answered the first round stays in flight
    until the loop has ended.

    Args:
        spec: The call, with the hooks.
    """

    def __init__(self, spec: CallSpec) -> None:
        self._spec = msgspec.structs.replace(spec, open_with=None)
        self._in_flight: list[int] = []  # numbers of attempts of the first round; two after a hedge
        self._is_first = True

    def spec_of_round(self, number: int) -> CallSpec:
        """Return the call of a round, without a conversation of its own."""
        self._is_first = number == 1
        spec = self._spec
        if spec.before_attempt is None and spec.on_attempt_failed is None:
            return spec
        if self._is_first:
            return msgspec.structs.replace(
                spec, before_attempt=self._before_attempt, on_attempt_failed=self._on_attempt_failed
            )
        return msgspec.structs.replace(spec, before_attempt=None, on_attempt_failed=None)

    async def _before_attempt(self, number: int) -> None:
        if self._spec.before_attempt is not None:
            await self._spec.before_attempt(number)
        self._in_flight.append(number)

    async def _on_attempt_failed(self, number: int, response: APIResponse, is_final: bool) -> None:  # noqa: FBT001 - the signature of CallSpec.on_attempt_failed
        if number in self._in_flight:
            self._in_flight.remove(number)
        if self._spec.on_attempt_failed is not None:
            await self._spec.on_attempt_failed(number, response, is_final)

    async def fail(self, respond: Callable[[], APIResponse]) -> None:
        """Report that a round after the first one has failed."""
        if not self._is_first and self._in_flight and self._spec.on_attempt_failed is not None:
            await self._spec.on_attempt_failed(self._in_flight[-1], respond(), True)
