"""``CacheOperations``: the operations of clients and administrators on stored answers: report a wrong one, count
them, delete them.

Each deletion is in the audit log, with the name of who asked for it, and no text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass

from router.cache.answer_cache import AnswerCache
from router.errors import NotFoundError, UnavailableError
from router.ports.answer_cache import (
    CacheSize,
    EntryFilter,
    EntryStore,
    HitFeedback,
    HitJudge,
    SemanticUnavailableError,
)
from router.ports.cache_entry import CacheEntry, PoisonedEntryError, key_of

MAX_SAMPLE = 20
CHECK = "answer cache"
"""What was changed, in the audit log."""

Record = Callable[[str, Mapping[str, object]], None]
"""Adds a document about a tenant to the audit log."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The entries that match a filter: their number, and a sample of the first of them."""

    count: int
    sample: Sequence[CacheEntry]


class CacheOperations:
    """Carries out the operations on stored answers. ``record`` adds to the audit log. Each coroutine raises
    StateUnavailableError if the store cannot be reached."""

    def __init__(self, store: EntryStore, cache: AnswerCache, record: Record) -> None:
        self._store = store
        self._cache = cache
        self._record = record

    async def sizes(self) -> Sequence[CacheSize]:
        """Returns how many entries and bytes each tenant has stored."""
        return await self._store.sizes()

    async def judge(self, tenant: str, entry_id: str, who: str, *, wrong: bool, question: str = "") -> bool:
        """Records the judgement of the client ``who`` that a stored answer was right, or ``wrong``. Returns whether the
        entry was deleted.

        ``question`` is the one that the answer was given to; "": the entry's own. A wrong answer is deleted, unless it
        was given to another question than its own: then it may be right for its own, and only that pair of questions is
        no hit again. Raises NotFoundError if the tenant has no such entry, and UnavailableError if the
        index does not take the pair: it would be a hit again.
        """
        try:
            entry = await self._store.get(tenant, key_of(entry_id))
        except PoisonedEntryError:
            entry = None
        if entry is None or entry.id != entry_id:
            raise NotFoundError("There is no such stored answer.", "cache_entry_not_found", "entry")
        other = question if entry.semantic and question != entry.question else ""
        feedback = HitFeedback(tenant, entry_id, wrong, HitJudge.CLIENT, question=other, who=who)
        if other:
            await self._tell(feedback)
        else:
            self._cache.judge(feedback)
        deleted = wrong and not other and await self._store.delete(tenant, entry_id)
        outcome = ("wrong pair" if other else "wrong") if wrong else "right"
        self._record(tenant, {"check": CHECK, "outcome": outcome, "entry": entry_id, "reviewer": who})
        return deleted

    async def _tell(self, feedback: HitFeedback) -> None:
        try:
            await self._cache.tell(feedback)
        except SemanticUnavailableError:
            message = "The semantic index cannot be reached at the moment."
            raise UnavailableError(message, "state_unavailable", retry_after_s=1) from None

    async def matching(self, which: EntryFilter) -> Matches:
        """Returns the entries that match ``which``, without deleting them."""
        count, sample = 0, list[CacheEntry]()
        async for entry in self._found(which):
            count += 1
            if len(sample) < MAX_SAMPLE:
                sample.append(entry)
        return Matches(count, sample)

    async def invalidate(self, which: EntryFilter, who: str) -> Matches:
        """Deletes the entries that match ``which``, and returns their number and a sample. ``who`` is the
        administrator's name in the audit log. A filter that names a tenant alone, or nothing, deletes whole tenants at
        once, poisoned entries included. Any other filter also deletes the poisoned entries among those that it is
        compared with."""
        deleted: Counter[str] = Counter()
        sample = list[CacheEntry]()
        try:
            if which in (EntryFilter(), EntryFilter(tenant=which.tenant)):
                await self._clear(which.tenant, deleted, sample)
            else:
                await self._delete(which, deleted, sample)
        finally:  # what was deleted before an outage is recorded too
            asked = {name: value for name, value in asdict(which).items() if value is not None}
            asked = {name: "(text)" if name == "question_prefix" else value for name, value in asked.items()}
            for tenant, count in sorted(deleted.items()):
                self._record(
                    tenant, {"check": CHECK, "outcome": "invalidated", "count": count, "filter": asked, "reviewer": who}
                )
        return Matches(deleted.total(), sample)

    async def _clear(self, tenant: str | None, deleted: Counter[str], sample: list[CacheEntry]) -> None:
        for name in await self._store.tenants() if tenant is None else [tenant]:
            if len(sample) < MAX_SAMPLE:
                async with aclosing(self._pages(name)) as pages:
                    sample += (await anext(pages, []))[: MAX_SAMPLE - len(sample)]
            if count := await self._store.clear(name):
                deleted[name] += count

    async def _delete(self, which: EntryFilter, deleted: Counter[str], sample: list[CacheEntry]) -> None:
        async for batch in self._store.entries(which.tenant, discard_poisoned=True):
            meant = {entry.id: entry for entry in batch if which.matches(entry)}
            if not meant:
                continue
            tenant = batch[0].tenant  # a batch is of one tenant
            gone = await self._store.delete_many(tenant, list(meant))
            deleted[tenant] += len(gone)
            sample += [meant[each] for each in gone[: MAX_SAMPLE - len(sample)]]

    async def _pages(self, tenant: str) -> AsyncGenerator[Sequence[CacheEntry], None]:
        async for batch in self._store.entries(tenant):
            yield batch

    async def _found(self, which: EntryFilter) -> AsyncIterator[CacheEntry]:
        async for batch in self._store.entries(which.tenant):
            for entry in batch:
                if which.matches(entry):
                    yield entry
