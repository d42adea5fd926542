"""The messages between `deluge batch` and its worker processes, beside those about limits."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from lm_deluge.client.batch.client_copy import ClientCopy
from lm_deluge.client.batch.journaled import RowHistory
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.sharing.messages import FromMember, ToMember
from lm_deluge.errors import DelugeError

__all__ = [
    "AttemptOutcome",
    "Ended",
    "FromWorker",
    "GaveUp",
    "Intended",
    "PauseChanged",
    "Recorded",
    "RowGiven",
    "SetUp",
    "StopSending",
    "ToWorker",
]

JSON = dict[str, Any]


class SetUp(msgspec.Struct, frozen=True):
    """The first message to a worker: the client, and the options of all rows."""

    client: ClientCopy
    schema: JSON | None
    max_output_retries: int


class RowGiven(msgspec.Struct, frozen=True):
    """A row to be answered, and its record in the journal."""

    row: BatchRow
    history: RowHistory


class Recorded(msgspec.Struct, frozen=True):
    """The answer to `Intended` and `AttemptOutcome` with the same number.

    Attributes:
        number: The number of the message.
        error: Why the journal has no record; None if it has one.
        response: The response that the journal has if it could not take the one that was sent, else None.
    """

    number: int
    error: DelugeError | None = None
    response: JSON | None = None


class StopSending(msgspec.Struct, frozen=True):
    """No new request may be sent; requests in flight may end."""


class Intended(msgspec.Struct, frozen=True):
    """A request waits for its record in the journal."""

    number: int
    call: str
    attempt: int


class AttemptOutcome(msgspec.Struct, frozen=True):
    """The outcome of an attempt, as `APIResponse.to_dict` returns it."""

    number: int
    call: str
    attempt: int
    response: JSON
    is_final: bool


class Ended(msgspec.Struct, frozen=True):
    """The call of a row is over.

    Attributes:
        call: The name of the call.
        response: Its response; None if the batch ended before, or if it `is_recorded`.
        is_recorded: The response is the one that the journal had last.
    """

    call: str
    response: JSON | None
    is_recorded: bool


class GaveUp(msgspec.Struct, frozen=True):
    """The provider was never reached."""

    error: DelugeError


class PauseChanged(msgspec.Struct, frozen=True):
    """Whether the worker waits because no connection to the provider succeeds."""

    is_paused: bool


ToWorker: TypeAlias = SetUp | RowGiven | Recorded | StopSending | ToMember
FromWorker: TypeAlias = Intended | AttemptOutcome | Ended | GaveUp | PauseChanged | FromMember
