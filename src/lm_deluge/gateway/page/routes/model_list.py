"""The models as the page lists them: prices, windows and what they can do."""

from __future__ import annotations

import datetime as dt
from typing import Any

from lm_deluge.errors import NotFoundError, PermissionDeniedError
from lm_deluge.gateway.page.store.sessions import Visitor
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.models.registry import SIMULATOR
from lm_deluge.models.rows import ModelRow

__all__ = ["list_models_for"]

JSON = dict[str, Any]


async def list_models_for(services: GatewayServices, visitor: Visitor) -> JSON:
    """Return the models that a user may choose, and the one of new conversations."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    found = []
    for name, row in _rows(services):
        try:
            await services.access.check(visitor.token, name)
        except PermissionDeniedError:
            continue
        found.append(_fields_of(name, row.on(today)))
    names = [each["id"] for each in found]
    default = services.settings.page.model
    if default not in names:
        default = names[0] if names else None
    return {"default": default, "models": found}


def _rows(services: GatewayServices) -> list[tuple[str, ModelRow]]:
    """Return the names and rows of the models, and before them the one of new conversations if it is not listed."""
    rows = services.catalog.rows()
    wanted = services.settings.page.model
    if wanted is None or services.catalog.is_simulated or any(name == wanted for name, _ in rows):
        return rows
    try:  # a model of a server on this machine, for example, which needs no key
        return [(wanted, services.catalog.find(wanted).models[0]), *rows]
    except NotFoundError:
        return rows


def _fields_of(name: str, row: ModelRow) -> JSON:
    own, price = row.capabilities, row.price
    return {
        "id": name,
        "provider": row.provider,
        "context_window": row.context_window,
        "max_output": row.max_output_tokens,
        "input_price": None if price is None else price.input,
        "output_price": None if price is None else price.output,
        "images": own.image_input,
        "files": own.file_input,
        "tools": own.tools,
        "reasoning": bool(own.reasoning),
        "efforts": list(own.reasoning_efforts),
        "sampling": own.sampling is True,
        "simulated": row.id == SIMULATOR,
    }
