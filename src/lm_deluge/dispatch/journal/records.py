r"""The records of a journal and the state that they describe. Pure.

A journal is a text file with one record per line:

    <length> <crc> <payload>\n

`length` is the number of bytes of the payload and `crc` their CRC-32, each as eight hexadecimal digits; the payload is
one JSON object on one line. So each record can be checked, the record after a damaged line can be found, and `grep` and
`tail` work on the file. The first record is the header, the others are in the order in which they were written:

    {"type":"journal","version":1,"fingerprint":"<SHA-256 of the batch>","options":{"models":"acme-1"}}
    {"type":"intent","id":"17","attempt":1}
    {"type":"done","id":"17","attempt":1,"response":{...}}
    {"type":"failed","id":"17","attempt":1,"is_final":true,"response":{...}}
    {"type":"submit","batch":"k3v9","ids":["17","18"],"attempt":1,"at":1795564800.0}
    {"type":"handle","batch":"k3v9","provider":"acme","handle":"batch_abc"}

`intent`: a request is about to be sent. `done`: its answer, as `APIResponse.to_dict` returns it. `failed`: the attempt
failed, for good (`is_final`) or to be tried again. `submit`: several calls are about to be submitted as one batch of
the provider; it counts as an intent of each call. `handle`: the provider's name of the batch, empty if the provider
never accepted the batch.

- CRC-32 as in zlib, not CRC-32C: both detect every burst of up to 32 bits and miss one in four billion other errors,
  and the one of zlib is in the standard library, in C. It protects against torn writes and bit rot, not forgery.
- **A last line without a line end is torn**: the process died during the write, so no caller has seen the record. It is
  cut off, unless its payload is complete. A bad line with a line end is damage, and is always reported.
- An attempt with an intent but without an outcome is *ambiguous*: the request may have been sent and billed. An attempt
  in a batch with a handle is not ambiguous: the next run asks the provider for its outcome.
- A journal contains no API key and no prompt: calls have ids, the batch has a fingerprint. It contains the answers.
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
    "Status",
    "Submit",
    "SubmittedBatch",
    "Written",
    "decode_record",
    "encode_record",
    "fingerprint_of",
    "payload_of",
    "scan",
]

VERSION = 1  # of the format; raised when an older version of this package could misread a newer journal
MOST_BYTES = 1 << 28
"""Longest line, in bytes. Far above any answer; a longer line is damage and is not read into memory."""
FRAME = 18
"""Bytes before a payload: two numbers of eight digits, each followed by a space."""

Status: TypeAlias = Literal["done", "failed", "in_flight", "waiting"]


class Header(msgspec.Struct, frozen=True, tag="journal"):
    """The first record: version of the format, fingerprint of the batch, and its options for messages."""

    version: int
    fingerprint: str
    options: dict[str, str] = {}


class Intent(msgspec.Struct, frozen=True, tag="intent"):
    """A request is about to be sent."""

    id: str
    attempt: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The answer is complete."""

    id: str
    attempt: int
    response: dict[str, Any]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The attempt failed. After `is_final` there is no other attempt. Without a response the request was never sent."""

    id: str
    attempt: int
    is_final: bool = False
    response: dict[str, Any] | None = None


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Calls are about to be submitted as one batch of the provider; `at` is in seconds since 1970."""

    batch: str
    ids: tuple[str, ...]
    attempt: int
    at: float = 0.0


class Handle(msgspec.Struct, frozen=True, tag="handle"):
    """The provider's name of a batch; empty if the provider never received the batch, or refused it."""

    batch: str
    provider: str
    handle: str


Record: TypeAlias = Header | Intent | Done | Failed | Submit | Handle
Written: TypeAlias = Intent | Done | Failed | Submit | Handle


class JournalEntry(msgspec.Struct, frozen=True, gc=False, rename={"kind": "type"}):
    """A record without its response, which `JournalState` does not need: a million entries are read in seconds."""

    kind: Literal["journal", "intent", "done", "failed", "submit", "handle"]
    id: str = ""
    attempt: int = 0
    is_final: bool = False
    version: int = VERSION
    fingerprint: str = ""
    options: dict[str, str] = {}
    batch: str = ""
    ids: tuple[str, ...] = ()
    at: float = 0.0
    provider: str = ""
    handle: str = ""

    @classmethod
    def of(cls, record: Written) -> JournalEntry:
        """Return the entry that `scan` yields for the record once it is in the file."""
        fields = {name: getattr(record, name) for name in record.__struct_fields__ if name != "response"}
        return cls(_KINDS[type(record)], **fields)


class SubmittedBatch(msgspec.Struct):
    """A provider's own batch, as the journal knows it.

    Attributes:
        name: Our name of the batch.
        ids: Its calls, in the order in which they were submitted.
        attempt: The number of the attempt that the batch is, for each of its calls.
        at: When it was submitted, in seconds since 1970.
        handle: The provider's name; None while it is unknown whether the provider has the batch, empty if it has not.
    """

    name: str
    ids: tuple[str, ...]
    attempt: int
    at: float
    provider: str = ""
    handle: str | None = None


class Damage(msgspec.Struct, frozen=True):
    """Bytes that are no record. `is_tail`: they end the file without a line end, as after a torn write."""

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
        JournalError: The record does not fit into JSON, for example because of a lone surrogate, or is too long.
    """
    try:
        payload = _encoder.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # Not chained: a UnicodeEncodeError carries the text of the answer.
        raise JournalError(f"a record does not fit into JSON ({type(error).__name__})") from None
    if len(payload) > MOST_BYTES - FRAME - 1:
        raise JournalError(f"an answer of {len(payload)} bytes is too long for a journal")
    return b"%08x %08x %b\n" % (len(payload), zlib.crc32(payload), payload)


def payload_of(line: bytes) -> bytes | None:
    """Return the payload at the start of a line; None if there is no complete payload."""
    try:
        length, crc = int(line[:8], 16), int(line[9:17], 16)
    except ValueError:
        return None
    payload = line[FRAME : FRAME + length]
    is_whole = len(payload) == length and line[8:9] == line[17:18] == b" "
    return payload if is_whole and zlib.crc32(payload) == crc else None


def decode_record(payload: bytes) -> Record:
    """Return the record of a payload whose checksum is right."""
    record: Record = _record_decoder.decode(payload)
    return record


def scan(lines: Iterable[bytes]) -> Iterator[tuple[int, JournalEntry | Damage]]:
    """Yield each record or damage with its offset, in order. A complete last record counts without its line end.

    Args:
        lines: The lines, as a file opened in binary mode yields them. Pieces of a line that is too long are joined.

    Raises:
        JournalError: An undamaged record is of a kind that this version does not know.
    """
    offset = 0
    long_from: int | None = None  # the offset of a line of which only pieces came so far
    for line in lines:
        has_end = line.endswith(b"\n")
        start, offset = offset, offset + len(line)
        if long_from is None:
            payload = payload_of(line)
            is_whole = payload is not None and (not has_end or len(line) == FRAME + len(payload) + 1)
            entry = _entry(payload, start) if payload is not None and is_whole else None
            if entry is not None:
                yield start, entry
                continue
        line_start = start if long_from is None else long_from
        long_from = None if has_end else line_start
        if has_end:
            yield line_start, Damage(offset - line_start, is_tail=False)
    if long_from is not None:
        yield long_from, Damage(offset - long_from, is_tail=True)


class _Kind(msgspec.Struct):
    type: str


_kind_decoder = msgspec.json.Decoder(_Kind)
_KNOWN = frozenset(("journal", "intent", "done", "failed", "submit", "handle"))


def _entry(payload: bytes, offset: int) -> JournalEntry | None:
    """Return the record of a payload; None if its fields are wrong, which is damage."""
    try:
        return _entry_decoder.decode(payload)
    except (ValueError, RecursionError):  # ValueError: DecodeError and UnicodeDecodeError
        pass
    try:
        is_known = _kind_decoder.decode(payload).type in _KNOWN
    except (ValueError, RecursionError):
        is_known = True  # not JSON, so no version wrote it
    if is_known:
        return None
    raise JournalError(
        "the journal has a record that this version does not know",
        offset=offset,
        hint="A newer version of lm-deluge wrote it: resume with that version.",
    )


def fingerprint_of(options: Mapping[str, Any], inputs: Iterable[bytes]) -> str:
    """Return the SHA-256 of a batch: of all inputs in order, and of the options that shape the answers.

    Do not put the API key into the options: the same batch may be resumed with another key.
    """
    digest = hashlib.sha256(_encoder.encode({"version": VERSION, "options": options}))
    for each in inputs:
        digest.update(len(each).to_bytes(8, "big"))
        digest.update(each)
    return digest.hexdigest()


class JournalState:
    """The state of all calls after the records so far. It contains ids and offsets, no answers.

    Attributes:
        done: Offset of the answer of each call that is done; of two answers the first counts.
        failed: Offset of the last failure of each call that failed for good.
        batches: The provider's own batches, by our name of each.
    """

    __slots__ = ("_attempts", "_later", "_open", "batches", "done", "failed")

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.batches: dict[str, SubmittedBatch] = {}
        self._later: dict[str, int] = {}  # offset of the last answer of each call that has several
        self._open: dict[str, tuple[int, ...]] = {}  # attempts without an outcome
        self._attempts: dict[str, int] = {}  # number of the last attempt at each call that is not done

    def add(self, entry: JournalEntry, offset: int) -> None:
        """Add the next record."""
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
            if entry.kind == "done":
                self._later[call] = offset
            return
        if entry.kind == "done":
            self.done[call] = offset
            self.failed.pop(call, None)
            self._attempts.pop(call, None)
        else:
            self._attempts[call] = max(entry.attempt, self._attempts.get(call, 0))
            if entry.is_final:
                self.failed[call] = offset

    def forget(self, call: str) -> None:
        """Drop an outcome that cannot be read: a later answer takes its place, or else the call is not done."""
        if call in self._later:
            self.done[call] = self._later.pop(call)
        else:
            self.done.pop(call, None)
            self.failed.pop(call, None)

    @property
    def ambiguous(self) -> tuple[tuple[str, int], ...]:
        """The attempts (call id and number) that may have been sent and billed: with an intent, without an outcome.

        While the batch runs these are the attempts in flight. An attempt stays ambiguous after a later one is done.
        """
        known = {(each, batch.attempt) for batch in self.batches.values() if batch.handle for each in batch.ids}
        attempts = ((call, attempt) for call, numbers in self._open.items() for attempt in numbers)
        return tuple(each for each in attempts if each not in known)

    def waiting_in(self, batch: SubmittedBatch) -> list[str]:
        """Return the calls of a batch that have no outcome yet."""
        return [each for each in batch.ids if batch.attempt in self._open.get(each, ())]

    @property
    def open_batches(self) -> list[SubmittedBatch]:
        """The provider's own batches with calls that have no outcome yet, in the order of submission."""
        return [batch for batch in self.batches.values() if self.waiting_in(batch)]

    def attempts(self, call: str) -> int:
        """Return the number of the last attempt at a call that is not done; 0 if there was none."""
        return self._attempts.get(call, 0)

    def status(self, call: str) -> Status | None:
        """Return the status of a call; None if the journal has no record of the call."""
        if call in self.done:
            return "done"
        if call in self._open:
            return "in_flight"
        if call in self.failed:
            return "failed"
        return "waiting" if call in self._attempts else None
