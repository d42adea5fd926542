"""Builds the limiter that several processes share from the options of a client."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from lm_deluge.api_requests.accounts import Accounts
from lm_deluge.api_requests.credentials import find_access
from lm_deluge.client.scheduling import own_limits, shared_by_models
from lm_deluge.config import ClientOptions
from lm_deluge.dispatch.scheduling.runner import LimiterLock
from lm_deluge.dispatch.scheduling.shared.configuration import GroupLimits, SharedConfiguration, state_key
from lm_deluge.dispatch.scheduling.shared.connection import parse_address
from lm_deluge.dispatch.scheduling.shared.limiter import SharedLimiter
from lm_deluge.dispatch.scheduling.shared.link import LimiterLink
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import SIMULATOR, find_provider
from lm_deluge.models.rows import ModelRow

__all__ = ["build_shared_limiter"]

_NAME_BYTES = 6  # random: no two processes of one limit have the same name


def build_shared_limiter(
    url: str, options: ClientOptions, models: Iterable[ModelRow], accounts: Accounts
) -> tuple[LimiterLock, LimiterLink]:
    """Return the lock of a limiter whose state is kept by a server, and the link to that server.

    Raises:
        ConfigurationError: The URL is invalid, or redis-py is not installed.
    """
    address = parse_address(url)
    routes = [
        (row, key, state_key([_credential(row, explicit, accounts)]))
        for row in models
        for key, explicit in accounts.keys_of(find_provider(row.provider)).items()
    ]
    of_client = GroupLimits(shared_by_models(options), options.max_concurrent_requests)
    states = list(dict.fromkeys(state for _, _, state in routes))
    configuration = SharedConfiguration(
        states[0], of_client, client_key=states[0] if len(states) == 1 else state_key(states)
    )
    for row, key, state in routes:
        limits, most = own_limits(options, row.id)
        configuration.add(
            row.id,
            key,
            GroupLimits(limits, most),
            counts_max_tokens=find_provider(row.provider).counts_max_tokens,
            state=state,
        )
    name = f"{os.getpid()}-{secrets.token_hex(_NAME_BYTES)}"
    limiter = SharedLimiter(configuration, name, processes=address.processes)
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
