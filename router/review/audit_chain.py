"""The hash chain of the audit log: adds records to a chain, and verifies that a chain is unchanged. Pure.

The hash of a record is SHA-256 of the hash before it and of the record's text. To change, remove or move a record, one
has to change the hash of every later one, and the head, which is stored apart. Anyone who can write to the store can do
all of that. For evidence against the store's owner, keep the heads elsewhere. See B. Schneier and J. Kelsey, "Secure
Audit Logs to Support Computer Forensics" (1999), section 3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from router.ports.audit_store import AuditDay, AuditEntry

GENESIS = "0" * 64
"""The hash that the first record of a tenant follows."""
HASH_LENGTH = 64


@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first bad record of a chain, by its number from 1. 0: the day's first record does not follow the last one of
    the day before."""

    record: int
    reason: str


def canonical(document: dict[str, object]) -> str:
    """Returns ``document`` as canonical JSON: sorted names, no spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def linked(previous: str, number: int, entry: AuditEntry) -> str:
    """Returns the line of ``entry`` as the record ``number`` of its day. ``previous`` is the hash of the record before
    it."""
    record = canonical({**json.loads(entry.document), "id": entry.id, "number": number})
    return f"{chained(previous, record)} {record}"


def extended(head: str, records: int, entries: Iterable[AuditEntry]) -> list[str]:
    """Returns the lines that append ``entries`` to a day with ``records`` records. ``head`` is the hash of the last of
    these."""
    lines: list[str] = []
    for entry in entries:
        records += 1
        lines.append(linked(head, records, entry))
        head = lines[-1][:HASH_LENGTH]
    return lines


def chained(previous: str, record: str) -> str:
    """Returns the hash of ``record`` after a record with the hash ``previous``, in hexadecimal."""
    return hashlib.sha256(previous.encode() + record.encode()).hexdigest()


class ChainVerifier:
    """Reads the lines of one day in order, in any number of pieces, and keeps the first fault. ``opening`` is the hash
    of the last line before this day."""

    def __init__(self, opening: str) -> None:
        self._hash = opening
        self._records = 0
        self.fault: ChainFault | None = None

    def push(self, lines: Iterable[str]) -> None:
        """Reads the next lines. After a fault it ignores further lines."""
        for line in lines:
            if self.fault is not None:
                return
            self._records += 1
            self.fault = self._fault(line)
            self._hash = line[:HASH_LENGTH]

    def end(self, day: AuditDay) -> ChainFault | None:
        """Returns the first fault; None if there is none. The chain must also end with the head of ``day``."""
        if self.fault is None and self._records < day.records:
            self.fault = ChainFault(self._records + 1, f"missing: the head counts {day.records} records")
        elif self.fault is None and self._records > day.records:
            self.fault = ChainFault(day.records + 1, f"surplus: the head counts {day.records} records")
        elif self.fault is None and self._hash != day.head:
            self.fault = ChainFault(self._records, "its hash is not that of the head")
        return self.fault

    def _fault(self, line: str) -> ChainFault | None:
        number, (found, _, record) = self._records, line.partition(" ")
        try:
            document = json.loads(record)
            own = document["number"]
        except (ValueError, TypeError, KeyError):
            return ChainFault(number, "it is no record")
        if isinstance(own, int) and own > number:
            return ChainFault(number, f"missing: record {own} is in its place")
        if own != number:
            return ChainFault(number, f"out of place: record {own} is there again")
        if found != chained(self._hash, record):
            return ChainFault(number, "changed: its hash is not that of its text and of the record before")
        return None


def verify(day: AuditDay, lines: Iterable[str]) -> ChainFault | None:
    """Returns the first bad record of a day; None if all records are unchanged. ``lines`` are the lines of that day, in
    order."""
    verifier = ChainVerifier(day.opening)
    verifier.push(lines)
    return verifier.end(day)


def opening_fault(days: Sequence[AuditDay], place: int) -> ChainFault | None:
    """Returns a fault if the chain of ``days[place]`` does not continue that of the day before it; None: it does.
    ``days`` are all days of one tenant, in order."""
    expected = days[place - 1].head if place else GENESIS
    if days[place].opening == expected:
        return None
    return ChainFault(0, "it does not follow the last record of the day before: days or heads are missing")
