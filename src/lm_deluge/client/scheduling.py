"""Build a client's limiter, routes and runner from its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lm_deluge.config import LIMIT_NAMES, ClientOptions
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
from lm_deluge.dispatch.scheduling.scheduler import Route
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.wire.rate_limit_headers import Dimension

__all__ = ["build_limiter", "build_routes", "build_runner"]

_DIMENSIONS: dict[str, Dimension] = {
    "max_requests_per_minute": "requests",
    "max_tokens_per_minute": "tokens",
    "max_input_tokens_per_minute": "input_tokens",
    "max_output_tokens_per_minute": "output_tokens",
}


def build_limiter(options: ClientOptions, models: Iterable[ModelRow] = ()) -> LocalLimiter:
    """Return a limiter with the client's limits and the limits that the user set for single models.

    The limiter learns the providers' limits from their responses.
    """
    of_client = {name: getattr(options, name) for name in LIMIT_NAMES}
    limiter = LocalLimiter(_limits(of_client), max_concurrent=options.max_concurrent_requests)
    for model in models:
        model_limits = (options.model_limits or {}).get(model.id, {})
        max_concurrent = model_limits.get("max_concurrent_requests")
        limiter.set_limits(
            model.id,
            "",
            _limits(model_limits),
            max_concurrent=None if max_concurrent is None else int(max_concurrent),
            counts_max_tokens=find_provider(model.provider).counts_max_tokens,
            is_firm=True,
        )
    return limiter


def _limits(options: Mapping[str, float | None]) -> list[Limit]:
    amounts = {name: options.get(name) for name in LIMIT_NAMES}
    return [Limit(_DIMENSIONS[name], amount) for name, amount in amounts.items() if amount is not None]


def build_routes(
    models: Sequence[ModelRow], weights: Sequence[float] | None, fallback: Sequence[ModelRow] = ()
) -> list[Route]:
    """Return a route for each model, the fallback models last.

    Raises:
        ConfigurationError: The numbers of weights and models differ.
    """
    if weights is not None and len(weights) != len(models):
        raise ConfigurationError(f"there are {len(weights)} model_weights for {len(models)} models")
    shares = weights or [1.0] * len(models)
    own = [
        Route(model.id, weight=weight, provider=model.provider) for model, weight in zip(models, shares, strict=True)
    ]
    return [*own, *(Route(model.id, provider=model.provider, is_fallback=True) for model in fallback)]


def build_runner(
    limiter: LimiterLock, options: ClientOptions, models: Sequence[ModelRow], fallback: Sequence[ModelRow]
) -> Runner:
    """Return a runner for the current event loop."""
    return Runner(
        limiter,
        build_routes(models, options.model_weights, fallback),
        max_attempts=options.max_attempts,
        max_retry_after_s=options.max_retry_after_s,
        total_s=options.timeouts.total,
        hedge_after=options.hedge_after,
    )
