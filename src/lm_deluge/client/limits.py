"""From a client's options to its limiter and routes."""

from __future__ import annotations

from collections.abc import Sequence

from lm_deluge.config import LIMIT_NAMES, ClientOptions
from lm_deluge.dispatch.limiter import LocalLimiter
from lm_deluge.dispatch.limits import Limit
from lm_deluge.dispatch.scheduler import Route
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.rows import ModelRow
from lm_deluge.wire.rate_limit_headers import Dimension

__all__ = ["build_limiter", "build_routes"]

_DIMENSIONS: dict[str, Dimension] = {
    "max_requests_per_minute": "requests",
    "max_tokens_per_minute": "tokens",
    "max_input_tokens_per_minute": "input_tokens",
    "max_output_tokens_per_minute": "output_tokens",
}


def build_limiter(options: ClientOptions) -> LocalLimiter:
    """Return a limiter with the client's own limits; those of providers it learns from their answers."""
    said = {name: getattr(options, name) for name in LIMIT_NAMES}
    limits = [Limit(_DIMENSIONS[name], amount) for name, amount in said.items() if amount is not None]
    return LocalLimiter(limits, max_concurrent=options.max_concurrent_requests)


def build_routes(
    models: Sequence[ModelRow], weights: Sequence[float] | None, fallback: Sequence[ModelRow] = ()
) -> list[Route]:
    """Return a route for each model, those of the fallback last.

    Raises:
        ConfigurationError: There are not as many weights as models.
    """
    if weights is not None and len(weights) != len(models):
        raise ConfigurationError(f"there are {len(weights)} model_weights for {len(models)} models")
    shares = weights or [1.0] * len(models)
    own = [
        Route(model.id, weight=weight, provider=model.provider) for model, weight in zip(models, shares, strict=True)
    ]
    return [*own, *(Route(model.id, provider=model.provider, is_fallback=True) for model in fallback)]
