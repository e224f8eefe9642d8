"""``CacheEntry``: one stored answer, and how every store writes it. Pure.

An entry is written as one line of checksum, a line feed, and JSON. What was cut off, altered, written by another
release or stored under another tenant's or request's name is not read as an entry.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields

FORMAT = 1
"""The version of the written form. Another one is not read: a cache may forget."""


class PoisonedEntryError(Exception):
    """What is stored is no entry of this tenant, key and release. The caller removes it by ``EntryStore.discard``."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The whole answers to one request, for one tenant.

    ``key`` is the digest of everything that decides the answer, ``partition`` that of the same without the last user
    message, whose text is ``question``; both are lower-case hexadecimal. ``question`` is "" if the entry answers its
    exact request alone. ``id`` is ``key``, a hyphen and a random part: another answer to the same request has another
    id. ``document`` is JSON of the answers and their usage; a store does not read it. Times are wall times in
    milliseconds since the epoch.
    """

    id: str
    tenant: str
    key: str
    partition: str
    question: str
    model_version: str
    template_version: str
    created_ms: int
    expires_ms: int
    document: str

    @property
    def semantic(self) -> bool:
        """Whether the entry may answer other questions of the same meaning."""
        return bool(self.question)


MEMBERS = {field.name: int if field.name.endswith("_ms") else str for field in fields(CacheEntry)}


def key_of(entry_id: str) -> str:
    """Returns the key of the entry with this id."""
    return entry_id.partition("-")[0]


def encode_entry(entry: CacheEntry) -> bytes:
    """Returns the written form of ``entry``."""
    members = {name: getattr(entry, name) for name in MEMBERS}  # dataclasses.asdict copies deeply
    body = json.dumps({"format": FORMAT, **members}, separators=(",", ":")).encode()
    return _checksum(body) + b"\n" + body


def decode_entry(data: bytes, tenant: str, key: str) -> CacheEntry:
    """Returns the entry that ``encode_entry`` has written. Raises PoisonedEntryError, which quotes nothing, unless it
    is whole, of this FORMAT, and belongs to ``tenant`` and ``key``."""
    checksum, _, body = data.partition(b"\n")
    if checksum != _checksum(body):
        raise PoisonedEntryError("the entry is not whole")
    try:
        members = json.loads(body)
        written, values = members["format"], {name: members[name] for name in MEMBERS}
    except (ValueError, TypeError, KeyError):
        raise PoisonedEntryError("the entry cannot be read") from None
    if written != FORMAT or any(type(value) is not MEMBERS[name] for name, value in values.items()):
        raise PoisonedEntryError("the entry is of another release")
    entry = CacheEntry(**values)
    if entry.tenant != tenant or entry.key != key or key_of(entry.id) != key:
        raise PoisonedEntryError("the entry is another request's")
    return entry


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).hexdigest().encode()
