r"""What a journal is made of, and what it says. Pure: lines in, facts out.

A journal is a text file of one record a line:

    <length> <crc> <payload>\n

`length` is the number of the payload's bytes and `crc` their CRC-32, each as eight hexadecimal digits; the payload is
one JSON object without a line end in it. So a record checks itself, the next one is found behind damage, and `grep` and
`tail` read the file too. The first record is the header, the others are in the order in which things happened:

    {"type":"journal","version":1,"fingerprint":"<SHA-256 of the batch>"}
    {"type":"intent","id":"17","attempt":1}
    {"type":"done","id":"17","attempt":1,"response":{...}}
    {"type":"failed","id":"17","attempt":1,"is_final":true,"response":{...}}
    {"type":"submit","batch":"k3v9","ids":["17","18"],"attempt":1,"at":1795564800.0}
    {"type":"handle","batch":"k3v9","provider":"acme","handle":"batch_abc"}

An intent: a request is about to leave. Done: its answer, as `APIResponse.to_dict` has it. Failed: how it ended
otherwise, `is_final` or to be tried again. Submit: many calls are about to be handed over as a provider's own batch, an
intent of each. Handle: by which name the provider took them; an empty one says that it never did.

- CRC-32 as in zlib, not CRC-32C: both find every burst of up to 32 bits and miss one in four billion others, and zlib's
  is in the standard library, in C. It is there against torn writes and rot, not against forgery.
- **A last line without its end is torn**: the process died in the middle of a write, so nobody was told of it. It is
  cut off, unless all of its payload is there. A bad line that has its end is damage and never passed over in silence.
- An attempt with an intent and no outcome is *ambiguous*: the request may have been sent and billed, nobody can know.
  One in a batch with a handle is not: whoever resumes asks the provider for it.
- No key and no prompt is in it: calls have ids, the batch has a fingerprint. Answers are user data, and must be there.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from lm_deluge.errors import JournalError

__all__ = [
    "FRAME",
    "MOST_BYTES",
    "VERSION",
    "Damage",
    "Done",
    "Failed",
    "Handle",
    "Header",
    "Intent",
    "JournalEntry",
    "JournalState",
    "Record",
    "Submit",
    "SubmittedBatch",
    "Written",
    "decode_record",
    "encode_record",
    "fingerprint_of",
    "payload_of",
    "scan",
]

VERSION = 1
MOST_BYTES = 1 << 28
"""No line is longer; what seems to be is damage, and is not read into memory."""
FRAME = 18
"""Bytes in front of a payload: two numbers of eight digits, each with a blank behind it."""

Status: TypeAlias = Literal["done", "failed", "in_flight", "waiting"]


class Header(msgspec.Struct, frozen=True, tag="journal"):
    """The first record: which batch this is the journal of."""

    version: int
    fingerprint: str


class Intent(msgspec.Struct, frozen=True, tag="intent"):
    """A request is about to leave."""

    id: str
    attempt: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The answer came whole."""

    id: str
    attempt: int
    response: dict[str, Any]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The attempt ended otherwise: for good (`is_final`), or another one was due. No response: it was never sent."""

    id: str
    attempt: int
    is_final: bool = False
    response: dict[str, Any] | None = None


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Calls are about to be handed over as one batch of the provider; `at` is in seconds since 1970."""

    batch: str
    ids: tuple[str, ...]
    attempt: int
    at: float = 0.0


class Handle(msgspec.Struct, frozen=True, tag="handle"):
    """The provider has the batch, and knows it by `handle`; empty: it never got it, or refused it."""

    batch: str
    provider: str
    handle: str


Record: TypeAlias = Header | Intent | Done | Failed | Submit | Handle
Written: TypeAlias = Intent | Done | Failed | Submit | Handle


class JournalEntry(msgspec.Struct, frozen=True, gc=False, rename={"kind": "type"}):
    """A record without its response, which a fold does not need: a million of them are read in seconds."""

    kind: Literal["journal", "intent", "done", "failed", "submit", "handle"]
    id: str = ""
    attempt: int = 0
    is_final: bool = False
    version: int = VERSION
    fingerprint: str = ""
    batch: str = ""
    ids: tuple[str, ...] = ()
    at: float = 0.0
    provider: str = ""
    handle: str = ""

    @classmethod
    def of(cls, record: Written) -> JournalEntry:
        """Return the entry that is read where the record was written."""
        fields = {name: getattr(record, name) for name in record.__struct_fields__ if name != "response"}
        return cls(_KINDS[type(record)], **fields)


class SubmittedBatch(msgspec.Struct):
    """A provider's own batch, as far as the journal knows it.

    Attributes:
        ids: Its calls, in the order in which they were handed over.
        attempt: The attempt of each that it is.
        handle: None as long as nobody knows whether the provider has it; empty where it never got it.
    """

    name: str
    ids: tuple[str, ...]
    attempt: int
    at: float
    provider: str = ""
    handle: str | None = None


class Damage(msgspec.Struct, frozen=True):
    """Bytes that are no record. `is_tail`: they are the last ones and have no line end, as a torn write leaves them."""

    length: int
    is_tail: bool


_KINDS: dict[type, Literal["intent", "done", "failed", "submit", "handle"]] = {
    Intent: "intent",
    Done: "done",
    Failed: "failed",
    Submit: "submit",
    Handle: "handle",
}
_encoder = msgspec.json.Encoder()
_record_decoder = msgspec.json.Decoder(Record)
_entry_decoder = msgspec.json.Decoder(JournalEntry)


def encode_record(record: Record) -> bytes:
    """Return the record's line.

    Raises:
        JournalError: It has half characters in it, or what else is no JSON; or it is longer than `MOST_BYTES`.
    """
    try:
        payload = _encoder.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # Its text names a type or a position. UnicodeEncodeError carries the text itself, so it is no cause.
        raise JournalError(f"a record does not fit into JSON ({type(error).__name__})") from None
    if len(payload) > MOST_BYTES - FRAME - 1:
        raise JournalError(f"an answer of {len(payload)} bytes is too long for a journal")
    return b"%08x %08x %b\n" % (len(payload), zlib.crc32(payload), payload)


def payload_of(line: bytes) -> bytes | None:
    """Return the payload that a line begins with, None where it does not begin with a whole one."""
    try:
        length, crc = int(line[:8], 16), int(line[9:17], 16)
    except ValueError:
        return None
    payload = line[FRAME : FRAME + length]
    is_whole = len(payload) == length and line[8:9] == line[17:18] == b" "
    return payload if is_whole and zlib.crc32(payload) == crc else None


def decode_record(payload: bytes) -> Record:
    """Return the record of a payload that `scan` found good."""
    record: Record = _record_decoder.decode(payload)
    return record


def scan(lines: Iterable[bytes]) -> Iterator[tuple[int, JournalEntry | Damage]]:
    """Yield what stands at which offset, in order. A last record without its line end counts: all of it is there.

    Args:
        lines: As a file opened for bytes yields them; pieces of a line that is too long are taken for one.

    Raises:
        JournalError: A good record is of a kind that this version does not know.
    """
    offset = 0
    long_from: int | None = None  # where a line begins of which only pieces came so far
    for line in lines:
        has_end = line.endswith(b"\n")
        start, offset = offset, offset + len(line)
        if long_from is None:
            payload = payload_of(line)
            if payload is not None and (not has_end or len(line) == FRAME + len(payload) + 1):
                yield start, _entry(payload, start)
                continue
        begun = start if long_from is None else long_from
        long_from = None if has_end else begun
        if has_end:
            yield begun, Damage(offset - begun, is_tail=False)
    if long_from is not None:
        yield long_from, Damage(offset - long_from, is_tail=True)


def _entry(payload: bytes, offset: int) -> JournalEntry:
    try:
        return _entry_decoder.decode(payload)
    except msgspec.DecodeError:
        raise JournalError(
            "the journal has a record that this version does not know",
            offset=offset,
            hint="A newer version wrote it: resume with that one.",
        ) from None


def fingerprint_of(options: Mapping[str, Any], inputs: Iterable[bytes]) -> str:
    """Return the fingerprint of a batch: of every input in order and of the options that shape its answers.

    No key belongs into the options: a new key resumes the same batch.
    """
    digest = hashlib.sha256(_encoder.encode({"version": VERSION, "options": options}))
    for each in inputs:
        digest.update(len(each).to_bytes(8, "big"))
        digest.update(each)
    return digest.hexdigest()


class JournalState:
    """What a log says so far. It holds ids and offsets, no answers.

    Attributes:
        done: Where the answers of calls lie; the first one holds.
        failed: Where the last words of calls lie that failed for good.
        batches: The provider's own batches, by our name for them.
    """

    __slots__ = ("_attempts", "_open", "batches", "done", "failed")

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.batches: dict[str, SubmittedBatch] = {}
        self._open: dict[str, tuple[int, ...]] = {}  # attempts without an outcome
        self._attempts: dict[str, int] = {}  # how many there were, of calls that are not done

    def add(self, entry: JournalEntry, offset: int) -> None:
        """Take the next record."""
        if entry.kind == "intent":
            self._intend(entry.id, entry.attempt)
        elif entry.kind == "submit":
            self.batches[entry.batch] = SubmittedBatch(entry.batch, entry.ids, entry.attempt, entry.at)
            for each in entry.ids:
                self._intend(each, entry.attempt)
        elif entry.kind == "handle":
            self._take_handle(entry)
        elif entry.kind != "journal":
            self._settle(entry.id, entry.attempt)
            self._conclude(entry, offset)

    def _take_handle(self, entry: JournalEntry) -> None:
        batch = self.batches.get(entry.batch)
        if batch is None:  # its record was damaged and moved away
            return
        batch.provider, batch.handle = entry.provider, entry.handle
        for each in () if batch.handle else batch.ids:
            self._settle(each, batch.attempt)

    def _intend(self, call: str, attempt: int) -> None:
        self._open[call] = (*self._open.get(call, ()), attempt)
        if call not in self.done:
            self._attempts[call] = max(attempt, self._attempts.get(call, 0))
            self.failed.pop(call, None)

    def _settle(self, call: str, attempt: int) -> None:
        still_open = tuple(each for each in self._open.get(call, ()) if each != attempt)
        if still_open:
            self._open[call] = still_open
        else:
            self._open.pop(call, None)

    def _conclude(self, entry: JournalEntry, offset: int) -> None:
        call = entry.id
        if call in self.done:
            return
        if entry.kind == "done":
            self.done[call] = offset
            self.failed.pop(call, None)
            self._attempts.pop(call, None)
        else:
            self._attempts[call] = max(entry.attempt, self._attempts.get(call, 0))
            if entry.is_final:
                self.failed[call] = offset

    @property
    def ambiguous(self) -> tuple[tuple[str, int], ...]:
        """The attempts, as id and number, that may have been sent and billed: intended, and no outcome known.

        While the batch runs these are the ones in flight. One stays ambiguous when a later attempt is done.
        """
        known = {(each, batch.attempt) for batch in self.batches.values() if batch.handle for each in batch.ids}
        attempts = ((call, attempt) for call, numbers in self._open.items() for attempt in numbers)
        return tuple(each for each in attempts if each not in known)

    def waiting_in(self, batch: SubmittedBatch) -> list[str]:
        """Return the calls of a batch that it has not answered so far."""
        return [each for each in batch.ids if batch.attempt in self._open.get(each, ())]

    @property
    def open_batches(self) -> list[SubmittedBatch]:
        """The provider's own batches that have not answered all of their calls, as they were handed over."""
        return [batch for batch in self.batches.values() if self.waiting_in(batch)]

    def attempts(self, call: str) -> int:
        """Return the number of the last attempt at a call that is not done, 0 where there was none."""
        return self._attempts.get(call, 0)

    def status(self, call: str) -> Status | None:
        """Return how far a call has come; None where the journal knows nothing of it."""
        if call in self.done:
            return "done"
        if call in self._open:
            return "in_flight"
        if call in self.failed:
            return "failed"
        return "waiting" if call in self._attempts else None
