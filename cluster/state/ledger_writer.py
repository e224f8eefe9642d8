"""``LedgerWriter``: writes ledger entries to the store in the background, through a journal on disk."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

from cluster.state.disk_journal import DiskJournal
from cluster.state.write_behind import WriteBehind
from router.ports.ledger_store import LedgerEntry

_COMPACT = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for each line


class LedgerWriter(WriteBehind[LedgerEntry]):
    """Moves ledger entries from ``journal`` to the store. ``append`` adds entries to the store, each once, or raises
    StateUnavailableError. ``on_lost`` is called for each entry that is lost."""

    def __init__(
        self,
        journal: DiskJournal,
        append: Callable[[Sequence[LedgerEntry]], Awaitable[int]],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("the ledger", journal, encode, decode, append, on_lost)


def encode(entry: LedgerEntry) -> bytes:
    """Returns ``entry`` as a line of JSON."""
    fields = [entry.id, entry.tenant, entry.at_ms, dict(entry.labels), dict(entry.amounts), entry.document]
    part = [entry.part_of] if entry.part_of else []  # an older release reads whole entries
    return _COMPACT.encode(fields + part).encode()


def decode(line: bytes) -> LedgerEntry:
    """Returns the entry in a line of ``encode``. Raises ValueError or TypeError for a damaged line."""
    return LedgerEntry(*json.loads(line))
