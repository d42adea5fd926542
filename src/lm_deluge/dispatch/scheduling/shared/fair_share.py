"""The limiter of one process while the server of the shared limiter cannot be reached. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial

from lm_deluge.dispatch.scheduling.costs import AmountPerPeriod
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.shared.configuration import CLIENT, SharedConfiguration
from lm_deluge.dispatch.scheduling.shared.route import RouteSlots
from lm_deluge.dispatch.scheduling.shared.server_view import GroupView
from lm_deluge.wire.rate_limit_headers import Dimension

__all__ = ["fair_share"]

_SHARE_USED = 0.97  # the processes do not know when the others send, so a window may hold one request more of each
_BURST_SHARE = 1 / 600  # of a period, as for the limits of one process


def fair_share(
    configuration: SharedConfiguration,
    routes: Mapping[tuple[str, str], RouteSlots],
    processes: int,
    process: str,
    now: float,
) -> LocalLimiter:
    """Return a limiter with one process's share of the limits, which goes on where the shared limiter stopped.

    The period of a limit is multiplied by the number of processes, not its amount divided: a request that is larger
    than the share stays possible.

    Args:
        configuration: The limits that the user has set, for those that the server has not shown yet.
        routes: The limits as the server had them last, and the last slots.
        processes: How many processes share the limits.
        process: The name of this process, which spreads the first requests.
        now: The present moment.
    """
    of_client = next((route.views[0] for route in routes.values() if route.parts[0].group == CLIENT), GroupView())
    client = configuration.client
    share = LocalLimiter(
        _limits(of_client, client.limits, processes), max_concurrent=_places(client.max_concurrent, processes)
    )
    phase = int(hashlib.sha256(process.encode()).hexdigest()[:8], 16) / 2**32
    for (model, key), route in routes.items():
        own = configuration.routes[model, key].limits
        share.set_limits(
            model,
            key,
            _limits(route.views[-1], own.limits, processes),
            max_concurrent=_places(own.max_concurrent, processes),
            counts_max_tokens=route.counts_max_tokens,
            is_firm=True,
        )
        share.resume(model, key, next_at=partial(_next_at, route, phase, now), in_flight=route.in_flight, now=now)
    return share


def _next_at(route: RouteSlots, phase: float, now: float, limit: AmountPerPeriod) -> float:
    """Return when the next request may leave: a usual one after the last, or after a part of that time."""
    units = route.usual_cost().expected_units(limit.dimension, limit.amount)
    between_s = max(1.0, units) * limit.period_s / limit.amount
    return max(route.last_slot_at + between_s, now + phase * between_s if route.last_slot_at < now else now)


def _limits(view: GroupView, configured: Iterable[Limit], processes: int) -> list[Limit]:
    known: list[tuple[Dimension, float, float, float]] = [
        (each.dimension, each.amount, each.period_s, each.rate_share) for each in view.limits
    ]
    if not known:
        known = [(each.dimension, each.amount, each.period_s, 1.0) for each in configured]
    return [
        Limit(dimension, amount, period_s * processes / (_SHARE_USED * rate_share), burst_s=_BURST_SHARE * period_s)
        for dimension, amount, period_s, rate_share in known
    ]


def _places(most: int | None, processes: int) -> int | None:
    return None if most is None else max(1, most // processes)
