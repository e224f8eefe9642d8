"""``IndexFollower``: keeps a ``VectorIndex`` in step with the stored answers, by the feed of their changes.

The vectors are stored beside the answers. At its start, and after a gap in the feed, the index is rebuilt from these
vectors, and questions without a vector are embedded. Each replica follows the whole feed. Several may do the same work
at the same time, since each step is idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cluster.cache.embedding_cache import EmbeddingCache
from cluster.cache.ports import QuestionStore
from cluster.cache.vector_index import IndexedEntry, VectorIndex
from cluster.state.question_record import QuestionRecord, model_digest
from router.ports.answer_cache import CacheChange, ChangeKind, EntryFeed, EntryStore, FeedGapError
from router.ports.cache_entry import CacheEntry
from router.ports.clock import Clock
from router.ports.embedder import Embedder, EmbedderUnavailableError, TextTooLongError
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

MAX_CHANGES = 64  # that are read at once
MAX_TEXTS = 32  # that are embedded at once
MAX_EXPIRED = 1000  # that are removed at once
WAIT_S = 30.0  # for a change; the feed may answer earlier
MIN_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0  # after faults in a row


class FollowerState(StrEnum):
    """The state of the follower."""

    BUILDING = "building"  # there is no index yet
    FOLLOWING = "following"
    WAITING = "waiting"  # for Redis, or for the embedder, after a fault


@dataclass(slots=True)
class FollowerCounts:
    """The follower's counters since the start of the process.

    ``rebuilds``: the times that the whole index was rebuilt. ``poisoned``: records and changes that could not be read.
    ``too_long``: questions that are too long for the embedder. ``embedded``: questions that had no stored vector.
    """

    changes: int = 0
    rebuilds: int = 0
    poisoned: int = 0
    too_long: int = 0
    embedded: int = 0


class IndexFollower:
    """Owns the index of a replica. The caller calls ``run`` once, and cancels it at the end.

    ``make_index`` makes an empty index. ``embeddings`` caches the vectors of questions that were looked up.
    """

    def __init__(
        self,
        feed: EntryFeed,
        entries: EntryStore,
        questions: QuestionStore,
        embedder: Embedder,
        embeddings: EmbeddingCache,
        make_index: Callable[[], VectorIndex],
        clock: Clock,
    ) -> None:
        self._feed = feed
        self._entries = entries
        self._questions = questions
        self._embedder = embedder
        self._embeddings = embeddings
        self._make_index = make_index
        self._clock = clock
        self._position: str | None = None  # None: the index must be built
        self._has_gap = False  # whether changes were lost, so that what has no vector must be looked for
        self.index: VectorIndex | None = None
        self.model = 0  # the digest of the model whose vectors ``index`` has
        self.state = FollowerState.BUILDING
        self.counts = FollowerCounts()

    async def run(self) -> None:
        """Follows the feed until it is cancelled. After a fault of Redis or of the embedder it pauses and tries
        again."""
        pause_s = MIN_PAUSE_S
        while True:
            try:
                await self.step()
                pause_s = MIN_PAUSE_S
            except (StateUnavailableError, EmbedderUnavailableError) as error:
                if self.state is not FollowerState.WAITING:
                    logger.warning("the semantic index is not brought up to date for now: %s", error)
                self.state = FollowerState.WAITING
                await asyncio.sleep(pause_s)
                pause_s = min(MAX_PAUSE_S, 2 * pause_s)

    async def step(self) -> None:
        """Builds the index if there is none or the feed had a gap. Otherwise waits for changes, and applies them.

        Raises StateUnavailableError if Redis does not answer, and EmbedderUnavailableError if the embedder does not, or
        with vectors of another model. The next call gets the same changes again.
        """
        if self._position is None or self.index is None or self.model != self._model():
            self._position = None  # a fault before its end must not leave a part for the whole
            self._position = await self._build()
        else:
            await self._follow(self.index, self._position)
        self.state = FollowerState.FOLLOWING

    async def _follow(self, index: VectorIndex, position: str) -> None:
        try:
            changes = await self._feed.changes(position, MAX_CHANGES, WAIT_S)
        except FeedGapError as error:
            logger.warning("the semantic index is built anew: %s", error)
            self._lose_position()
            return
        except (ValueError, TypeError, KeyError) as error:
            # A change that no reader can read, and where the next one begins is not known. A new index begins after it.
            logger.error("a change of the stored answers cannot be read: %s", type(error).__name__)
            self.counts.poisoned += 1
            self._lose_position()
            return
        if changes:
            sound = [each for each in changes if is_sound(each)]
            self.counts.poisoned += len(changes) - len(sound)
            await self._apply(index, sound)
            self._position = changes[-1].position
            self.counts.changes += len(changes)
            await self._questions.note_position(self.model, self._position)
        expired = index.expire(self._now_ms(), MAX_EXPIRED)
        await self._questions.delete(expired)

    def _lose_position(self) -> None:
        self._position, self._has_gap = None, True

    async def _apply(self, index: VectorIndex, changes: Sequence[CacheChange]) -> None:
        cleared = {each.tenant: place for place, each in enumerate(changes) if each.kind is ChangeKind.CLEAR}
        if cleared:
            await self._forget(index, cleared)
            changes = [
                each
                for place, each in enumerate(changes)
                if each.kind is not ChangeKind.CLEAR and place > cleared.get(each.tenant, -1)
            ]
        last = {
            (each.tenant, each.id): each for each in changes
        }  # a repeated write deletes an entry and stores it again
        deleted = {place for place, each in last.items() if each.kind is ChangeKind.DELETE}
        put = [
            each
            for each in last.values()
            if each.kind is ChangeKind.PUT and each.expires_ms > self._now_ms() and not index.has(each.tenant, each.id)
        ]
        for place in range(0, len(put), MAX_TEXTS):
            await self._add(index, put[place : place + MAX_TEXTS])
        for tenant, entry_id in deleted:
            index.remove(tenant, entry_id)
        await self._questions.delete(deleted)

    async def _forget(self, index: VectorIndex, tenants: Collection[str]) -> None:
        """Removes all entries of some tenants, which the store has deleted at once, and their records: also of those
        that this index has evicted or never had."""
        gone = [place for place in index.entries() if place[0] in tenants]
        for start in range(0, len(gone), MAX_EXPIRED):
            some = gone[start : start + MAX_EXPIRED]
            for tenant, entry_id in some:
                index.remove(tenant, entry_id)
            await self._questions.delete(some)
        for tenant in tenants:
            await self._delete_orphans(tenant)

    async def _delete_orphans(self, tenant: str) -> None:
        """Deletes the records of a tenant whose answers are gone."""
        orphans: set[str] = set()
        async for page in self._questions.pages(tenant):
            orphans |= {each.id for each in page.records} | {entry_id for _, entry_id in page.poisoned}
        async for entries in self._entries.entries(tenant):  # read after the records: none of a new answer is deleted
            orphans.difference_update(each.id for each in entries)
        listed = [(tenant, entry_id) for entry_id in orphans]
        for start in range(0, len(listed), MAX_EXPIRED):
            await self._questions.delete(listed[start : start + MAX_EXPIRED])

    async def _add(self, index: VectorIndex, entries: Sequence[CacheChange | CacheEntry]) -> None:
        """Adds entries to the index. Their records are stored first, so that no other replica has to embed them."""
        name, model = self._embedder.model, self.model
        if model_digest(name) != model:
            raise EmbedderUnavailableError("another model has taken the embedder's place")
        known = await self._known(entries, model)
        missing: dict[str, list[CacheChange | CacheEntry]] = {}
        for each in entries:
            if (each.tenant, each.id) not in known:
                missing.setdefault(each.tenant, []).append(each)
        records = []
        for tenant, own in missing.items():
            vectors = await self._vectors(tenant, own, name)
            made = [
                QuestionRecord(
                    tenant, each.id, each.partition, each.question, each.created_ms, each.expires_ms, model, vector
                )
                for each, vector in zip(own, vectors, strict=True)
                if vector is not None
            ]
            await self._questions.put(made)  # at once: a fault of a later tenant's has none of these made again
            records += made
        for record in (*known.values(), *records):
            index.add(indexed(record), record.vector)
            await asyncio.sleep(0)  # look-ups go between

    async def _known(
        self, entries: Sequence[CacheChange | CacheEntry], model: int
    ) -> dict[tuple[str, str], QuestionRecord]:
        """Returns the records that are stored already, by tenant and id."""
        by_tenant: dict[str, list[str]] = {}
        for each in entries:
            by_tenant.setdefault(each.tenant, []).append(each.id)
        found: dict[tuple[str, str], QuestionRecord] = {}
        for tenant, ids in by_tenant.items():
            for record in await self._questions.get(tenant, ids):
                if record is not None and record.model == model and len(record.vector) == self._embedder.dimensions:
                    found[tenant, record.id] = record
        return found

    async def _vectors(
        self, tenant: str, entries: Sequence[CacheChange | CacheEntry], name: str
    ) -> list[NDArray[np.float32] | None]:
        """Returns the vector of each question of a tenant by the model ``name``; None where the embedder does not take
        the question. Raises EmbedderUnavailableError if another model answers: what has its vectors does not belong
        into this index."""
        texts = [each.question for each in entries]
        vectors = [self._embeddings.get(name, text) for text in texts]
        waiting = [place for place, vector in enumerate(vectors) if vector is None]
        while waiting:
            try:
                found = await self._embedder.embed([texts[place] for place in waiting], tenant)
            except TextTooLongError as error:
                self.counts.too_long += 1
                del waiting[error.index]
                continue
            if found.model != name:
                raise EmbedderUnavailableError("the embedder is being replaced by another model")
            self.counts.embedded += len(waiting)
            for place, vector in zip(waiting, found.vectors, strict=True):
                vectors[place] = vector
            break
        return vectors

    async def _build(self) -> str:
        """Builds the index from the stored records, and returns the position from which to follow.

        The former index, if there is one, answers until then. The new one is built on another thread.
        """
        model, now_ms = self._model(), self._now_ms()
        position = await self._feed.position()
        noted = None if self._has_gap else await self._questions.position(model)
        index = await asyncio.to_thread(self._make_index)  # the first on a machine compiles the scan
        unusable: list[tuple[str, str]] = []
        async for page in self._questions.pages():
            self.counts.poisoned += len(page.poisoned)
            unusable += page.poisoned
            unusable += [(each.tenant, each.id) for each in page.records if each.expires_ms <= now_ms]
            await asyncio.to_thread(_add_records, index, page.records, model, now_ms)
        self.index, self.model = index, model
        self.counts.rebuilds += 1
        await self._questions.delete(unusable)
        if noted is not None and int(noted) <= int(position):
            return noted
        await self._reconcile(index)
        await self._questions.note_position(model, position)
        self._has_gap = False
        return position

    async def _reconcile(self, index: VectorIndex) -> None:
        """Makes the index equal to the stored answers: adds those whose questions have no record, and removes records
        whose answers are gone."""
        gone = set(index.entries())
        async for page in self._entries.entries():
            gone.difference_update((each.tenant, each.id) for each in page)
            missing = [each for each in page if each.semantic and not index.has(each.tenant, each.id)]
            for place in range(0, len(missing), MAX_TEXTS):
                await self._add(index, missing[place : place + MAX_TEXTS])
        for tenant, entry_id in gone:
            index.remove(tenant, entry_id)
        await self._questions.delete(gone)

    def _model(self) -> int:
        return model_digest(self._embedder.model)

    def _now_ms(self) -> int:
        return int(1000 * self._clock.now())


def is_sound(change: CacheChange) -> bool:
    """Returns whether all members of a change have the right types. The check is needed because anyone who can write to
    Redis can write a change."""
    texts = change.tenant, change.id, change.partition, change.question
    times = change.created_ms, change.expires_ms
    return all(type(each) is str for each in texts) and all(type(each) is int and 0 <= each < 1 << 62 for each in times)


def indexed(record: QuestionRecord) -> IndexedEntry:
    """Returns the entry that the index keeps of ``record``, beside its vector."""
    return IndexedEntry(record.tenant, record.id, record.partition, record.created_ms, record.expires_ms)


def _add_records(index: VectorIndex, records: Iterable[QuestionRecord], model: int, now_ms: int) -> None:
    kept = {
        (each.tenant, each.id): each
        for each in records
        if each.model == model and each.expires_ms > now_ms and len(each.vector) == index.dimensions
    }
    if kept:
        vectors = np.stack([each.vector for each in kept.values()])
        index.add_many([indexed(each) for each in kept.values()], vectors)
