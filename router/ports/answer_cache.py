"""The ports of the answer cache: ``EntryStore`` for stored answers, ``EntryFeed`` for readers that follow its changes,
and ``SemanticIndex`` for questions of the same meaning.

``cluster.state`` implements the store and the feed with Redis, ``router.memory_entry_store`` in the memory of one
process; ``cluster.cache`` implements the index. One suite of contract tests runs all implementations of a port.

All times are wall times in milliseconds since the epoch. An entry belongs to one tenant, and no method returns it for
another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from router.ports.cache_entry import CacheEntry

AWAITED_MS: Final = 1000
"""For how many milliseconds an owner counts as waiting after it has asked. Who waits asks several times in it."""


@dataclass(frozen=True, slots=True)
class CacheBounds:
    """The most that one tenant may have stored. The least recently used entries are evicted."""

    max_entries: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer of ``EntryStore.find_or_lead`` without an entry.

    ``leading``: the caller is now the leader and generates the answer. ``unshared``: a leader has just found that its
    answer may not be stored, so that each request needs its own. Neither: another owner leads, and its lease ends in
    ``left_ms`` unless it is renewed. ``epoch`` is that of the tenant.
    """

    leading: bool = False
    unshared: bool = False
    left_ms: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """A filter on entries. An entry matches if it matches all members that are not None.

    ``question_prefix`` is compared as it is. ``created_before_ms`` is exclusive.
    """

    tenant: str | None = None
    model_version: str | None = None
    template_version: str | None = None
    question_prefix: str | None = None
    created_before_ms: int | None = None
    entry_id: str | None = None

    def matches(self, entry: CacheEntry) -> bool:
        """Returns whether ``entry`` matches the filter."""
        return (
            self.tenant in (None, entry.tenant)
            and self.model_version in (None, entry.model_version)
            and self.template_version in (None, entry.template_version)
            and self.entry_id in (None, entry.id)
            and (self.question_prefix is None or entry.question.startswith(self.question_prefix))
            and (self.created_before_ms is None or entry.created_ms < self.created_before_ms)
        )


@dataclass(frozen=True, slots=True)
class CacheSize:
    """The number of entries that a tenant has stored, and their size. ``bytes`` are those of the encoded entries."""

    tenant: str
    entries: int
    bytes: int


class EntryStore(Protocol):
    """The stored answers. Each coroutine raises StateUnavailableError if the store cannot be reached in time."""

    async def start(self) -> None:
        """Prepares for calls. Called once, on the event loop of all other calls. Does not fail if the store is down."""
        ...

    async def close(self) -> None:
        """Closes all connections. Further calls raise StateUnavailableError."""
        ...

    async def get(self, tenant: str, key: str) -> CacheEntry | None:
        """Returns the entry with this key, and counts it as used; None if there is none, or it has expired.

        It takes one round trip, since requests wait for it. Raises PoisonedEntryError if the stored bytes are no valid
        entry.
        """
        ...

    async def find_or_lead(self, tenant: str, key: str, owner: str, lease_ms: int) -> CacheEntry | Lease:
        """Returns the entry as ``get`` does. If there is none, takes the lease on the key for ``owner``, unless another
        owner has it. One round trip, atomic. Raises PoisonedEntryError as ``get`` does."""
        ...

    async def awaited(self, tenant: str, key: str, owner: str) -> bool:
        """Returns whether ``owner`` has the lease on the key, and another owner waits for its answer: within the last
        AWAITED_MS it has asked for the lease in vain. One round trip."""
        ...

    async def renew(self, tenant: str, key: str, owner: str, lease_ms: int) -> bool:
        """Extends the lease of ``owner`` to ``lease_ms`` from now. Returns whether ``owner`` still has it."""
        ...

    async def release(self, tenant: str, key: str, owner: str, unshared_ms: int = 0) -> None:
        """Ends the lease of ``owner``, if it has it. The next ``find_or_lead`` leads.

        With ``unshared_ms``, no owner leads for that time, and ``find_or_lead`` returns ``Lease(unshared=True)``.
        """
        ...

    async def epoch(self, tenant: str) -> int:
        """Returns the tenant's epoch: the number of times that ``clear`` or ``delete_many`` has deleted entries."""
        ...

    async def put(self, entry: CacheEntry, bounds: CacheBounds, owner: str = "", epoch: int | None = None) -> bool:
        """Stores ``entry`` in place of a former one with its key, announces it on the feed, and ends the lease of
        ``owner`` on the key. Evicts the least recently used entries until the tenant is within ``bounds``.

        ``epoch`` is that of the tenant when the generation of the answer began; None: it is not compared. Returns
        False, and stores nothing, if it is another one by now, and if the entry has expired or alone exceeds
        ``bounds``.
        """
        ...

    async def discard(self, tenant: str, key: str) -> bool:
        """Deletes the value stored under ``key``, even if it is no valid entry. Returns whether there was one."""
        ...

    async def delete(self, tenant: str, entry_id: str) -> bool:
        """Deletes the entry with this id. Returns whether it was there. A later entry with the same key, which has
        another id, stays."""
        ...

    async def delete_many(self, tenant: str, entry_ids: Sequence[str]) -> Sequence[str]:
        """Deletes the entries with these ids, in batches, and begins a new epoch. Returns the ids of those there were;
        a later entry with the same key stays."""
        ...

    async def clear(self, tenant: str) -> int:
        """Deletes all entries of ``tenant``, poisoned ones too, at once, and begins a new epoch, so that answers whose
        generation began before are not stored. Returns their number, in which expired ones may be counted."""
        ...

    async def tenants(self) -> Sequence[str]:
        """Returns the tenants that may have entries, sorted."""
        ...

    def entries(
        self, tenant: str | None = None, *, discard_poisoned: bool = False
    ) -> AsyncIterator[Sequence[CacheEntry]]:
        """Yields the entries of ``tenant``, or of all tenants, in batches, without counting them as used. One that is
        stored or deleted meanwhile may be left out. Poisoned entries are left out, and deleted if ``discard_poisoned``.
        """
        ...

    async def sizes(self) -> Sequence[CacheSize]:
        """Returns the number and size of each tenant's entries, sorted by tenant. Expired entries may be counted for a
        while."""
        ...


class ChangeKind(StrEnum):
    """The kind of a change of an entry."""

    PUT = "put"
    DELETE = "delete"
    CLEAR = "clear"  # all entries of the tenant that were announced before are deleted


class CacheChange(NamedTuple):
    """A change of the stored entries. ``position`` orders changes. DELETE has ``tenant``, ``id`` and ``partition``
    alone, CLEAR ``tenant`` alone. Entries without a question are not announced.

    The expiry of an entry is not announced.
    """

    position: str
    kind: ChangeKind
    tenant: str
    id: str
    partition: str
    question: str = ""
    created_ms: int = 0
    expires_ms: int = 0


class FeedGapError(Exception):
    """Changes after the position have been dropped, since the feed is bounded. The reader starts again from
    ``EntryStore.entries``."""


class EntryFeed(Protocol):
    """The changes of the stored entries, of all tenants, for the semantic index. It is bounded: the oldest are dropped.

    A reader takes ``position`` first, then all of ``EntryStore.entries``, then the changes after that position. Each
    coroutine raises StateUnavailableError if the store cannot be reached.
    """

    async def position(self) -> str:
        """Returns the position of the last change."""
        ...

    async def changes(self, after: str, count: int, wait_s: float) -> Sequence[CacheChange]:
        """Returns at most ``count`` changes after a position, oldest first. Waits at most ``wait_s`` seconds for the
        first change, and returns () if none came. Raises FeedGapError if changes after the position were dropped."""
        ...


class SemanticQuestion(NamedTuple):
    """A look-up in the semantic index: for entries of ``tenant`` in ``partition`` whose question means the same as
    ``text``.

    ``max_false_hit_rate`` is the share of pairs of different questions, 0 to 1, that may count as hits.
    ``min_created_ms``: entries created before are left out.
    """

    tenant: str
    partition: str
    text: str
    max_false_hit_rate: float
    min_created_ms: int = 0


REFUSED_BY_SCORE: Final = "score"
"""Why a candidate is no hit that neither guard nor comparison has refused: its score is below the threshold."""


class SemanticMatch(NamedTuple):
    """The best candidate for a question.

    ``similarity`` is the cosine of the two questions' embeddings. ``score`` is the calibrated score that both stages
    give the pair, 0 to 1, which is compared with the threshold for ``max_false_hit_rate``. ``refused_by`` says why the
    candidate is no hit, in one or two words such as ``score`` or ``negation``; "" if it is a hit.
    """

    entry_id: str
    similarity: float
    score: float
    refused_by: str = ""

    @property
    def hit(self) -> bool:
        """Whether the entry answers the question."""
        return not self.refused_by


class HitJudge(StrEnum):
    """The source of a judgement of a hit or a near miss."""

    CLIENT = "client"  # by POST /v1/cache/feedback
    NEAR_MISS = "near_miss"  # the score was too low for a hit, and the new answer was compared with the stored one
    SHADOW = "shadow"  # the answer was generated, and compared with the stored one


class HitFeedback(NamedTuple):
    """Whether the answer of the entry was right for a question.

    ``score`` is that of the candidate; None: not known, or the hit was exact. ``question`` is the text that was asked;
    "" if it is not known. ``weight`` is one by the probability with which look-ups of this kind are compared. ``who``
    names the key of the client that says so; "" for a comparison.
    """

    tenant: str
    entry_id: str
    wrong: bool
    judge: HitJudge
    score: float | None = None
    question: str = ""
    weight: float = 1.0
    who: str = ""


class SemanticUnavailableError(Exception):
    """The semantic index did not answer in time, or cannot be reached. The look-up then counts as a miss."""


class SemanticIndex(Protocol):
    """The questions of the stored entries by their meaning. It learns of entries from the ``EntryFeed``."""

    async def lookup(self, question: SemanticQuestion) -> SemanticMatch | None:
        """Returns the best candidate; None if the partition has no similar question. Raises SemanticUnavailableError if
        the index does not answer."""
        ...

    async def feedback(self, feedback: HitFeedback) -> None:
        """Takes into account, for the tenant's threshold, whether a hit was right. A pair of questions that was found
        wrong is no hit of the tenant again, until the entry expires. If a client calls an answer wrong and names no
        question, the entry answers no question any more. Raises SemanticUnavailableError if the index does not
        answer."""
        ...
