"""What a process reports of itself: its requests in flight, and the limits that it knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_deluge.dispatch.scheduling.output_lengths import Expected
from lm_deluge.dispatch.scheduling.shared.configuration import Part, SharedConfiguration
from lm_deluge.dispatch.scheduling.shared.route import RouteSlots
from lm_deluge.dispatch.scheduling.shared.server_view import GroupView
from lm_deluge.wire.rate_limit_headers import MINUTE_S

__all__ = [
    "count_busy",
    "describe_delays",
    "describe_groups",
    "measure_overruns",
    "shortest_period_s",
]


def count_busy(keys: Sequence[str], routes: Iterable[RouteSlots]) -> list[dict[str, int]]:
    """Return, by state and group, the requests in flight and the slots held for further ones."""
    found: list[dict[str, int]] = [{} for _ in keys]
    for route in routes:
        for part in route.parts:
            group = found[part.state - 1]
            group[part.group] = group.get(part.group, 0) + route.busy
    return found


def measure_overruns(
    keys: Sequence[str], routes: Iterable[RouteSlots], jitter_s: float, now: float
) -> list[dict[str, Any]]:
    """Return, by state, group and dimension, by how much the requests in flight may exceed their charges."""
    found: list[dict[str, Any]] = [{} for _ in keys]
    for route in routes:
        for part, view in zip(route.parts, route.views, strict=True):
            for limit in view.limits:
                if limit.dimension != "requests":
                    group = found[part.state - 1].setdefault(part.group, {})
                    over = route.overrun(limit.dimension, now, now - limit.period_s - jitter_s)
                    group[limit.dimension] = over.plus(group.get(limit.dimension, Expected(0.0, 0.0)))
    return found


def describe_groups(
    configuration: SharedConfiguration, routes: Iterable[RouteSlots], now: float
) -> list[dict[str, Any]]:
    """Return, by state and group, the limits that the user has set and those that responses have shown."""
    states: list[dict[str, Any]] = [{} for _ in configuration.keys]
    views: dict[Part, GroupView] = {}
    for route in routes:
        views |= dict(zip(route.parts, route.views, strict=True))
    for part, group in configuration.groups.items():
        view = views.get(part, GroupView())
        states[part.state - 1][part.group] = {
            "limits": [[each.dimension, each.period_s, each.amount, each.burst_s or 0] for each in group.limits],
            "most": group.max_concurrent or 0,
            "learned": [
                [each.dimension, each.period_s, each.amount, each.rate_share]
                for each in view.limits
                if each.is_named or not each.is_firm
            ],
            "closed": max(0.0, view.opens_at - now),
        }
    return states


def describe_delays(routes: Mapping[tuple[str, str], RouteSlots], processes: int, now: float) -> str | None:
    """Return a description of the limits that delay calls at present; None without any."""
    reasons: list[str] = []
    for (model, _), route in routes.items():
        limits = [limit for limit in route.limits if max(limit.opens_at, limit.closed_until) > now]
        if route.is_full:
            reasons.append(f"calls at once at {model}, of all processes")
        elif limits:
            tightest = max(limits, key=lambda limit: max(limit.opens_at, limit.closed_until))
            name = tightest.dimension.replace("_", " ")
            reasons.append(f"{name} in {tightest.period_s:g} s of {model}, for {processes} processes")
    return ", ".join(reasons) or None


def shortest_period_s(routes: Iterable[RouteSlots]) -> float:
    """Return the shortest period of a limit in seconds, at most a minute."""
    return min([MINUTE_S, *(limit.period_s for route in routes for limit in route.limits)])
