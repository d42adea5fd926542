"""Builds the limiter, the routes and the runner of a client from its options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lm_deluge.api_requests.accounts import Accounts
from lm_deluge.api_requests.credentials import find_access
from lm_deluge.config import LIMIT_NAMES, ClientOptions
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
from lm_deluge.dispatch.scheduling.scheduler import Route
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import SIMULATOR, find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.wire.rate_limit_headers import Dimension

if TYPE_CHECKING:
    from lm_deluge.dispatch.scheduling.shared.link import LimiterLink

__all__ = ["build_limiter", "build_routes", "build_runner", "build_shared_limiter"]

_DIMENSIONS: dict[str, Dimension] = {
    "max_requests_per_minute": "requests",
    "max_tokens_per_minute": "tokens",
    "max_input_tokens_per_minute": "input_tokens",
    "max_output_tokens_per_minute": "output_tokens",
}


def build_limiter(
    options: ClientOptions, models: Iterable[ModelRow] = (), accounts: Accounts | None = None
) -> LocalLimiter:
    """Return a limiter with the limits of the client and of its models; each key of a provider has those of its own.

    It learns the limits of providers from their responses.
    """
    limiter = LocalLimiter(_shared_by_models(options), max_concurrent=options.max_concurrent_requests)
    for model in models:
        limits, most = _own_limits(options, model.id)
        for key in _key_names(accounts, model):
            limiter.set_limits(
                model.id,
                key,
                limits,
                max_concurrent=most,
                counts_max_tokens=find_provider(model.provider).counts_max_tokens,
                is_firm=True,
            )
    return limiter


def build_shared_limiter(
    url: str, options: ClientOptions, models: Iterable[ModelRow], accounts: Accounts
) -> tuple[LimiterLock, LimiterLink]:
    """Return the lock of a limiter whose state is kept by a server, and the link to that server.

    Raises:
        ConfigurationError: The URL is invalid, or redis-py is not installed.
    """
    from lm_deluge.dispatch.scheduling.shared.configuration import GroupLimits, SharedConfiguration, state_key
    from lm_deluge.dispatch.scheduling.shared.connection import parse_address
    from lm_deluge.dispatch.scheduling.shared.limiter import SharedLimiter
    from lm_deluge.dispatch.scheduling.shared.link import LimiterLink, new_process_name

    address = parse_address(url)
    routes = [
        (row, key, state_key([_credential(row, explicit, accounts)]))
        for row in models
        for key, explicit in accounts.keys_of(find_provider(row.provider)).items()
    ]
    of_client = GroupLimits(_shared_by_models(options), options.max_concurrent_requests)
    states = list(dict.fromkeys(state for _, _, state in routes))
    is_own = len(states) == 1 and not address.scope
    configuration = SharedConfiguration(
        states[0], of_client, client_key=states[0] if is_own else state_key([*states, address.scope])
    )
    for row, key, state in routes:
        limits, most = _own_limits(options, row.id)
        configuration.add(
            row.id,
            key,
            GroupLimits(limits, most),
            counts_max_tokens=find_provider(row.provider).counts_max_tokens,
            state=state,
        )
    limiter = SharedLimiter(configuration, new_process_name(), processes=address.processes)
    lock = LimiterLock(limiter)
    return lock, LimiterLink(limiter, lock, address)


def _credential(row: ModelRow, explicit: str | None, accounts: Accounts) -> str:
    """Return host and key of a model's provider; without a key, where its requests have none or it is missing."""
    provider = find_provider(row.provider)
    if row.provider == SIMULATOR:
        return SIMULATOR  # its address changes with the process
    try:
        access = find_access(provider, row, base_url=accounts.url_of(provider), api_key=explicit, proxy=None)
    except ConfigurationError:
        return provider.id  # the call itself raises the error
    return f"{urlsplit(access.base_url).netloc} {'' if access.key is None else access.key.reveal()}"


def _shared_by_models(options: ClientOptions) -> list[Limit]:
    """Return the limits of all models of a client together."""
    return _limits({name: getattr(options, name) for name in LIMIT_NAMES})


def _own_limits(options: ClientOptions, model: str) -> tuple[list[Limit], int | None]:
    """Return the limits that the options set for a single model, and how many of its requests may be in flight."""
    own = (options.model_limits or {}).get(model, {})
    most = own.get("max_concurrent_requests")
    return _limits(own), None if most is None else int(most)


def _key_names(accounts: Accounts | None, model: ModelRow) -> Iterable[str]:
    return ("",) if accounts is None else accounts.keys_of(find_provider(model.provider))


def _limits(named: Mapping[str, float | None]) -> list[Limit]:
    amounts = {name: named.get(name) for name in LIMIT_NAMES}
    return [Limit(_DIMENSIONS[name], amount) for name, amount in amounts.items() if amount is not None]


def build_routes(
    models: Sequence[ModelRow],
    weights: Sequence[float] | None,
    fallback: Sequence[ModelRow] = (),
    *,
    accounts: Accounts | None = None,
    has_windows: bool = True,
) -> list[Route]:
    """Return a route for each key of each model; the routes of fallback models come last.

    Args:
        models: Rows of the models that share the calls.
        weights: Their shares; None: equal ones.
        fallback: Rows of the models that answer where none of the others can.
        accounts: The keys; None: each model has one.
        has_windows: Whether calls may move to a model with a larger context window.

    Raises:
        ConfigurationError: The numbers of weights and of models differ.
    """
    if weights is not None and len(weights) != len(models):
        raise ConfigurationError(f"there are {len(weights)} model_weights for {len(models)} models")
    shares = weights or [1.0] * len(models)

    def routes_to(model: ModelRow, weight: float = 1.0, *, is_fallback: bool = False) -> list[Route]:
        window = model.context_window if has_windows else None
        keys = tuple(_key_names(accounts, model))
        share = weight / len(keys)
        return [Route(model.id, key, share, model.provider, is_fallback, window) for key in keys]

    own = [routes_to(model, weight) for model, weight in zip(models, shares, strict=True)]
    return list(chain(*own, *(routes_to(model, is_fallback=True) for model in fallback)))


def build_runner(
    limiter: LimiterLock,
    options: ClientOptions,
    models: Sequence[ModelRow],
    fallback: Sequence[ModelRow],
    accounts: Accounts | None = None,
    make: Callable[..., Runner] = Runner,
) -> Runner:
    """Return a runner for the running event loop.

    Args:
        limiter: Shared with the runners of other loops.
        options: The client's options.
        models: Rows of the models that share the calls.
        fallback: Rows of the models that answer where none of the others can.
        accounts: The keys; None: each model has one.
        make: `Runner`, or a function that adds arguments to it, such as a clock.
    """
    return make(
        limiter,
        build_routes(
            models, options.model_weights, fallback, accounts=accounts, has_windows=options.fallback_on_context
        ),
        max_attempts=options.max_attempts,
        max_retry_after_s=options.max_retry_after_s,
        total_s=options.timeouts.total,
        hedge_after=options.hedge_after,
    )
