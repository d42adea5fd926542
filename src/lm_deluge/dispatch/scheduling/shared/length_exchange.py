"""The lengths of answers that processes share. Pure.

A limit of tokens is used as far as the costs of the requests in flight are known. A process of many has few answers of
its own, and would reserve too much for a long time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

from lm_deluge.dispatch.scheduling.output_lengths import LengthSample
from lm_deluge.dispatch.scheduling.shared.reply import LengthsReply
from lm_deluge.dispatch.scheduling.shared.route import RouteSlots

__all__ = ["LengthExchange", "LengthOffer"]

_ENOUGH = 500  # lengths: the doubt about their variance is a tenth then
_NONE_WANTED = -1  # samples are numbered from 1, and 0 asks for all
_DIGITS = 3  # milliseconds: answers take seconds

LengthOffer = tuple[int, str, int, list[LengthSample]]
"""State, group, the number of the last sample that this process has, and its own new ones."""


class LengthExchange:
    """Offers the samples of this process, and takes those of others while it has few."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[RouteSlots, int] = WeakKeyDictionary()

    def offer(self, routes: Iterable[RouteSlots]) -> tuple[list[RouteSlots], list[LengthOffer]]:
        """Return the routes whose limits depend on lengths, and what to send for each."""
        concerned = [route for route in routes if route.has_token_limits]
        return concerned, [self._offer(route) for route in concerned]

    def _offer(self, route: RouteSlots) -> LengthOffer:
        part, lengths = route.parts[-1], route.lengths
        known = self._known.get(route, 0) if lengths.count < _ENOUGH else _NONE_WANTED
        samples = [sample._replace(first=round(sample.first, _DIGITS)) for sample in lengths.take_offered()]
        return part.state, part.group, known, samples

    def take(self, routes: Sequence[RouteSlots], replies: Sequence[LengthsReply]) -> None:
        """Learn the samples of other processes."""
        for route, reply in zip(routes, replies, strict=True):
            self._known[route] = reply.count
            if isinstance(reply.samples, list):
                route.lengths.learn(reply.samples)
