"""``CacheEntry``: one stored answer, and how every store writes it. Pure.

An entry is written as one line of checksum, a line feed, and JSON. Bytes that were cut off, altered, written by another
release or stored under another tenant's or request's key are not accepted as an entry.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields

FORMAT = 1
"""The version of the written form. Another one is not read: a cache may forget."""


class PoisonedEntryError(Exception):
    """The stored bytes are no valid entry of this tenant, key and release. The caller removes them with
    ``EntryStore.discard``."""


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
    """Returns ``entry`` in its stored form, which has a checksum."""
    members = {name: getattr(entry, name) for name in MEMBERS}  # dataclasses.asdict copies deeply
    body = json.dumps({"format": FORMAT, **members}, separators=(",", ":")).encode()
    return _checksum(body) + b"\n" + body


def decode_entry(data: bytes, tenant: str, key: str) -> CacheEntry:
    """Returns the entry that ``encode_entry`` has written. Raises PoisonedEntryError, whose message quotes no text,
    unless the entry is undamaged, has this release's FORMAT, and belongs to ``tenant`` and ``key``."""
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
