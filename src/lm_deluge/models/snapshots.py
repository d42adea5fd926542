"""The file of all rows, `models.json`: its format. Equal capabilities are stored once. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.usage import Price

__all__ = ["Snapshot", "read_snapshot"]


class StoredRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A `ModelRow` with the key of its capabilities in place of them."""

    id: str
    name: str
    provider: str
    capabilities: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    status: Literal["beta", "deprecated", "retired"] | None = None
    retires: str | None = None
    successor: str = ""
    price: Price | None = None


class Snapshot(msgspec.Struct, kw_only=True):
    """The models of all providers on a day, such as `2026-11-30`."""

    date: str
    capabilities: dict[str, Capabilities]
    models: list[StoredRow]

    def rows(self) -> list[ModelRow]:
        """Return the rows. Rows with equal capabilities share one object."""
        sets = self.capabilities
        return [
            ModelRow(
                id=row.id,
                name=row.name,
                provider=row.provider,
                context_window=row.context_window,
                max_output_tokens=row.max_output_tokens,
                status=row.status,
                retires=row.retires,
                successor=row.successor,
                price=row.price,
                capabilities=sets[row.capabilities],
            )
            for row in self.models
        ]


def read_snapshot(data: bytes) -> Snapshot:
    """Return the contents of the file.

    Raises:
        msgspec.DecodeError: The data is not JSON, or has another format.
    """
    return msgspec.json.decode(data, type=Snapshot)
