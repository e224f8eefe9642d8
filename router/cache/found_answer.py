"""``Found``: the result of looking one request up in the answer cache, and the right to store its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from engine.api import Usage
from router.cache.answer_document import StoredAnswers
from router.cache.cache_key import CacheKeys
from router.complete_answer import Answer
from router.inference_request import InferenceRequest
from router.ports.answer_cache import SemanticMatch
from router.ports.cache_entry import CacheEntry
from safety.api import Inspection


class CacheStatus(StrEnum):
    """The outcome of a look-up in the cache."""

    EXACT = "exact"  # by the answer to the same request
    SEMANTIC = "semantic"  # by the answer to a question of the same meaning
    MISS = "miss"  # it has none
    BYPASS = "bypass"  # it was not asked


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored answer, and the cache entry that has it. ``match`` is the semantic match; None: it was found by its
    exact key."""

    entry: CacheEntry
    stored: StoredAnswers
    match: SemanticMatch | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to store the answer to a request. ``leading``: other requests wait for it. ``shadow``: the semantic hit
    that the answer is to be compared with. ``near``: the candidate whose answer it is to be compared with, since its
    score was too low for a hit. None: there is none. ``epoch`` is the tenant's before the answer is
    generated; None: not known yet."""

    tenant: str
    keys: CacheKeys
    request: InferenceRequest
    model_version: str
    ttl_s: float
    leading: bool = False
    shadow: Hit | None = None
    near: SemanticMatch | None = None
    epoch: int | None = None


class AnswerKeeper(Protocol):
    """The cache that issued a ticket. It takes the ticket back with the answer, or without one."""

    @property
    def max_entry_bytes(self) -> int:
        """The size of the largest answer that is stored, in bytes."""

    def keep(self, ticket: Ticket, stored: StoredAnswers, inspections: Sequence[Inspection]) -> None:
        """Stores the answers in the background, if they may be stored."""

    def not_kept(self, ticket: Ticket, reason: str) -> None:
        """Counts that the answer is not stored, for ``reason`` (a word or two)."""

    async def unwanted(self, ticket: Ticket) -> None:
        """Waits until no other request waits for the answer."""

    def give_up(self, ticket: Ticket) -> None:
        """Returns the ticket of a request that has failed or whose client has left."""


class Found:
    """The result of looking up one request. It is a context manager.

    ``status`` is the outcome and ``reason`` explains it in a word. ``header`` has both. ``hit`` is the stored answer;
    None: the answer must be generated. ``age_s`` is the age of a stored answer, in seconds. ``cache`` None: the service
    has no answer cache. If ``keeps`` is True, the caller passes the generated answer to ``keep``. If the context ends
    without that, the next identical request that waits generates.
    """

    def __init__(
        self, cache: AnswerKeeper | None, status: CacheStatus, reason: str, hit: Hit | None = None, age_s: float = 0.0
    ) -> None:
        self._cache = cache
        self.age_s = age_s
        self.status = status
        self.reason = reason
        self.hit = hit
        self.ticket: Ticket | None = None

    @property
    def keeps(self) -> bool:
        """Whether the caller should pass the generated answer to ``keep``."""
        return self.ticket is not None

    @property
    def entry_id(self) -> str:
        """The id of the cache entry that was hit; "" without a hit."""
        return "" if self.hit is None else self.hit.entry.id

    @property
    def header(self) -> str:
        """The value of the header x-manta-cache."""
        if self.hit is None:
            return f"{self.status}; {self.reason}"
        match = self.hit.match
        how = f"age={max(0, int(self.age_s))}" if match is None else f"score={match.score:.3f}"
        return f"{self.status}; {self.reason}; {how}" if self.reason else f"{self.status}; {how}"

    @property
    def max_chars(self) -> int:
        """The most characters of an answer that ``keep`` takes. A longer answer is not stored."""
        return 0 if self._cache is None else self._cache.max_entry_bytes

    @property
    def leading(self) -> bool:
        """Whether other requests, of this router or of others, may wait for the answer. Then its generation goes on
        when this client leaves, until ``unwanted`` returns."""
        return self.ticket is not None and self.ticket.leading

    async def unwanted(self) -> None:
        """Waits until no other request, of this router or of another one, waits for the answer."""
        if self._cache is not None and (ticket := self.ticket) is not None:
            await self._cache.unwanted(ticket)

    def not_stored(self, reason: str) -> None:
        """Says that the answer will not be stored, for ``reason`` (a word). Identical requests that wait for it stop
        waiting."""
        ticket, self.ticket = self.ticket, None
        if ticket is not None and self._cache is not None:
            self._cache.not_kept(ticket, reason)

    def keep(self, answers: Sequence[Answer], usage: Usage, reasoning: int, inspections: Sequence[Inspection]) -> None:
        """Stores the generated answers in the background, if they may be stored, and returns at once. Identical
        requests that wait get them. ``usage`` has the request's tokens, ``reasoning`` those of its reasoning alone."""
        if (ticket := self.ticket) is not None and self._cache is not None:
            self._cache.keep(ticket, StoredAnswers(tuple(answers), usage, reasoning), inspections)
        self.ticket = None  # not before: after an error those that wait go on without this request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket, self.ticket = self.ticket, None
        if ticket is not None and self._cache is not None:
            self._cache.give_up(ticket)
