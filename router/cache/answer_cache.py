"""``AnswerCache``: looks up the answer to a request, exact first and then by meaning, and stores new answers.

It fails open: without the store or the index, each look-up is a miss.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

from engine.api import FinishReason
from router.cache.answer_agreement import same_answers
from router.cache.answer_document import StoredAnswers, decode_answers, encode_answers
from router.cache.cache_eligibility import bypass_reason, unstorable_reason
from router.cache.cache_key import CacheScope, cache_keys
from router.cache.flight_states import FlightRole
from router.cache.found_answer import CacheStatus, Found, Hit, Ticket
from router.cache.single_flight import UNSHARED_MS, Joined, SingleFlight
from router.config.answer_cache import AnswerCacheConfig, CacheTerms
from router.inference_request import CacheControls, InferenceRequest
from router.ports.answer_cache import (
    REFUSED_BY_SCORE,
    CacheBounds,
    EntryStore,
    HitFeedback,
    HitJudge,
    SemanticIndex,
    SemanticMatch,
    SemanticQuestion,
    SemanticUnavailableError,
)
from router.ports.cache_entry import CacheEntry, PoisonedEntryError, key_of
from router.ports.cache_metrics import CacheMetrics, NoCacheMetrics
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from safety.api import Inspection, Ruling

logger = logging.getLogger(__name__)

MAX_WRITES = 256
"""Answers that are stored, and judgements that are sent, at the same time. Further ones are dropped: an answer that is
not stored costs another generation, while a queue without an end costs the router."""
WAIT_SHARE = 0.5
"""The share of a request's deadline that it may wait for an identical one. The rest is for an answer of its own."""
CLOSE_S = 2.0  # the longest that ``close`` waits for them


class AnswerCache:
    """The answer cache of one router. ``index`` finds questions of the same meaning; None: only exact matches are
    found. ``metrics`` None: nothing is counted.

    ``draw`` returns random numbers in [0, 1), which choose the semantic hits whose answer is also generated for
    comparison.
    """

    def __init__(
        self,
        store: EntryStore,
        config: AnswerCacheConfig,
        clock: Clock,
        metrics: CacheMetrics | None = None,
        index: SemanticIndex | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._metrics = metrics or NoCacheMetrics()
        self._index = index
        self._draw = draw
        self._flights = SingleFlight(store, config.lease_s, config.max_wait_s, self._metrics.poisoned)
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def billed(self) -> bool:
        """Whether a hit is billed as if its answer had been generated."""
        return self._config.billing == "full"

    @property
    def max_entry_bytes(self) -> int:
        """The size of the largest answer that is stored, in bytes: the length of its JSON, which is ASCII, and of its
        question."""
        return self._config.max_entry_bytes

    async def start(self) -> None:
        """Starts the store."""
        await self._store.start()

    async def close(self) -> None:
        """Waits at most CLOSE_S seconds for background writes, releases the leases of this router, and closes the
        store. It is called after the last request."""
        if self._writes:
            await asyncio.wait(set(self._writes), timeout=CLOSE_S)
        await self._flights.close()
        await self._store.close()

    async def find(
        self, scope: CacheScope, request: InferenceRequest, controls: CacheControls, ruling: Ruling | None
    ) -> Found:
        """Returns the result of looking up ``request``. May wait for an identical request that is under way.

        ``ruling`` is the guard's decision on the request; None: there is no guard. No fault of the store or the index
        is raised: it counts as a miss.
        """
        request = replace(request, cache=controls)
        terms = self._config.terms(scope.tenant)
        found = await self._found(scope, request, terms, ruling)
        self._metrics.asked(scope.tenant, found.status.value, found.reason)
        return found

    def may_have(self, tenant: str, request: InferenceRequest, controls: CacheControls) -> bool:
        """Returns whether there may be a stored answer to ``request``, before the guard has inspected it."""
        return controls.lookup and self.concerns(tenant, request, controls)

    def concerns(self, tenant: str, request: InferenceRequest, controls: CacheControls) -> bool:
        """Returns whether the answer to ``request`` may be stored already, or be stored once it is generated, before
        the guard has inspected it."""
        terms = self._config.terms(tenant)
        used = terms.enabled and (controls.lookup or controls.store)
        return used and not bypass_reason(request, None, sampled_allowed=terms.sampled)

    async def _found(
        self, scope: CacheScope, request: InferenceRequest, terms: CacheTerms, ruling: Ruling | None
    ) -> Found:
        controls = request.cache
        reason = "off" if not terms.enabled else bypass_reason(request, ruling, sampled_allowed=terms.sampled)
        if reason or not (controls.lookup or controls.store):
            return Found(self, CacheStatus.BYPASS, reason or "no-cache")
        ttl_s = terms.ttl_s if controls.ttl_s is None else min(terms.ttl_s, controls.ttl_s)
        ticket = Ticket(scope.tenant, cache_keys(scope, request), request, scope.model_version, ttl_s)
        if not controls.lookup:
            return await self._missed(CacheStatus.BYPASS, "no-cache", ticket)
        joined = await self._joined(ticket)
        if joined.role is FlightRole.LEAD:
            ticket = replace(ticket, leading=True, epoch=joined.epoch)
        try:
            return await self._answered(ticket, terms, joined)
        except BaseException:  # a cancellation too: those that wait must not wait for this request
            self.give_up(ticket)
            raise

    async def _joined(self, ticket: Ticket) -> Joined:
        """Asks the store: for the entry, and with a lease if the answer may be stored, so that others share it."""
        tenant, key = ticket.tenant, ticket.keys.exact
        if ticket.request.cache.store:
            deadline_s = ticket.request.deadline_s
            return await self._flights.join(tenant, key, None if deadline_s is None else WAIT_SHARE * deadline_s)
        try:
            entry = await self._entry(tenant, key)
        except StateUnavailableError:
            return Joined(FlightRole.ALONE, reason="unavailable")
        return Joined(FlightRole.ALONE if entry is None else FlightRole.SHARE, entry, reason="no-store")

    async def _answered(self, ticket: Ticket, terms: CacheTerms, joined: Joined) -> Found:
        """Returns the hit, if there is one that will do; else what is to be done with the generated answer."""
        if joined.entry is not None:
            hit, reason = await self._shared(ticket, joined.entry)
            if hit is not None:
                return self._hit(ticket, hit, "shared" if joined.waited else "")
            return await self._missed(CacheStatus.MISS, reason, ticket)
        if joined.reason == "unavailable":
            return Found(self, CacheStatus.BYPASS, "unavailable")
        reason = joined.reason or "new"
        if joined.role is FlightRole.LEAD or not ticket.request.cache.store:
            hit, reason, near = await self._by_meaning(ticket, terms, reason)
            if near is not None and self._draw() < self._config.near_miss_share:
                ticket = replace(ticket, near=near)
            if hit is not None and self._draw() >= self._config.shadow_share:
                self._share(ticket, hit)
                return self._hit(ticket, hit, "")
            if hit is not None:
                ticket, reason = replace(ticket, shadow=hit), "shadow"
        return await self._missed(CacheStatus.MISS, reason, ticket)

    async def _shared(self, ticket: Ticket, entry: CacheEntry) -> tuple[Hit | None, str]:
        """Returns the hit that ``entry`` is, or why it will not do. It has the key of the request, or it is what an
        identical request has found by meaning."""
        if entry.created_ms < self._min_created_ms(ticket):
            return None, "max-age"
        if entry.key != ticket.keys.exact and not ticket.request.cache.semantic:
            return None, "new"
        hit = await self._read(ticket, entry)
        return hit, "" if hit is not None else "poisoned"

    async def _by_meaning(
        self, ticket: Ticket, terms: CacheTerms, reason: str
    ) -> tuple[Hit | None, str, SemanticMatch | None]:
        """Returns the hit by meaning, or why there is none, ``reason`` if no candidate is near, and the candidate whose
        score was too low."""
        keys, controls = ticket.keys, ticket.request.cache
        if self._index is None or not (keys.question and controls.semantic and terms.semantic):
            return None, reason, None
        bound = self._config.max_false_hit_rate
        question = SemanticQuestion(ticket.tenant, keys.partition, keys.question, bound, self._min_created_ms(ticket))
        try:
            match = await self._index.lookup(question)
            if match is None:
                return None, reason, None
            if not match.hit:
                return None, match.refused_by, match if match.refused_by == REFUSED_BY_SCORE else None
            hit, reason = await self._matched(ticket, match)
        except (SemanticUnavailableError, StateUnavailableError):
            return None, "index unavailable", None
        return hit, reason, None

    async def _matched(self, ticket: Ticket, match: SemanticMatch) -> tuple[Hit | None, str]:
        """Returns the stored answers that ``match`` means, or why they cannot be had. Raises StateUnavailableError."""
        entry = await self._entry(ticket.tenant, key_of(match.entry_id))
        # The index follows the store, and may still have what the store has deleted or replaced.
        partition = ticket.keys.partition
        if entry is None or entry.id != match.entry_id or entry.partition != partition or not entry.semantic:
            return None, "gone"
        hit = await self._read(ticket, entry)
        return (None, "poisoned") if hit is None else (replace(hit, match=match), "")

    async def _entry(self, tenant: str, key: str) -> CacheEntry | None:
        """Returns an entry; None if there is none. Removes a poisoned one. Raises StateUnavailableError."""
        try:
            return await self._store.get(tenant, key)
        except PoisonedEntryError:
            self._metrics.poisoned()
            await self._store.discard(tenant, key)
            return None

    async def _read(self, ticket: Ticket, entry: CacheEntry) -> Hit | None:
        """Returns the answers in ``entry``. If it is poisoned, removes it: None."""
        try:
            return Hit(entry, decode_answers(entry.document, ticket.request.choice_prompts))
        except PoisonedEntryError:
            self._metrics.poisoned()
            self._write(self._discard(entry))
            return None

    def _hit(self, ticket: Ticket, hit: Hit, reason: str) -> Found:
        status = CacheStatus.EXACT if hit.entry.key == ticket.keys.exact else CacheStatus.SEMANTIC
        return Found(self, status, reason, hit, self._clock.now() - hit.entry.created_ms / 1000)

    async def _missed(self, status: CacheStatus, reason: str, ticket: Ticket) -> Found:
        found = Found(self, status, reason)
        if ticket.request.cache.store and ticket.epoch is None:
            try:
                ticket = replace(ticket, epoch=await self._store.epoch(ticket.tenant))
            except StateUnavailableError:
                return found  # its answer could not be stored either
        found.ticket = ticket if ticket.request.cache.store or ticket.shadow is not None else None
        return found

    def _share(self, ticket: Ticket, hit: Hit) -> None:
        """Gives a semantic hit to the requests that wait for the same answer."""
        if ticket.leading:
            self._flights.answered(ticket.tenant, ticket.keys.exact, hit.entry)
            self._flights.forget(ticket.tenant, ticket.keys.exact, release_ms=0)

    def keep(self, ticket: Ticket, stored: StoredAnswers, inspections: Sequence[Inspection]) -> None:
        """Stores the answers to a request in the background, if they may be stored, and gives them to the identical
        requests that wait. ``inspections`` are the guard's records of the answers: those that it changed or halted are
        not stored."""
        tenant, key = ticket.tenant, ticket.keys.exact
        reason = unstorable_reason(stored.answers, len(ticket.request.choice_prompts), inspections)
        if not reason:
            self._compare(ticket, stored)
        if not ticket.request.cache.store:
            return None
        entry = self._new_entry(ticket, stored)
        if not reason and len(entry.document) + len(entry.question.encode()) > self._config.max_entry_bytes:
            reason = "large"
        if not reason and len(self._writes) >= MAX_WRITES:
            reason = "busy"
        if reason:
            return self.not_kept(ticket, reason)
        owner = self._flights.owner(tenant, key) if ticket.leading else ""
        if ticket.leading:
            self._flights.answered(tenant, key, entry)
        return self._write(self._put(ticket, entry, owner))

    def not_kept(self, ticket: Ticket, reason: str) -> None:
        """Counts that the answer of ``ticket`` is not stored, for ``reason`` (a word or two). If identical requests
        wait for the answer, each of them is generated by itself."""
        if not ticket.request.cache.store:
            return
        self._metrics.unstored(ticket.tenant, reason)
        if ticket.leading:
            self._flights.unshared(ticket.tenant, ticket.keys.exact, reason)

    async def unwanted(self, ticket: Ticket) -> None:
        """Waits until no other request, of this router or of another one, waits for the answer."""
        if ticket.leading:
            await self._flights.unwanted(ticket.tenant, ticket.keys.exact)

    def give_up(self, ticket: Ticket) -> None:
        """Returns the ticket of a request that has failed or whose client has left. The next identical request that
        waits generates."""
        if ticket.leading:
            self._flights.failed(ticket.tenant, ticket.keys.exact)

    async def _put(self, ticket: Ticket, entry: CacheEntry, owner: str) -> None:
        terms = self._config.terms(entry.tenant)
        kept, reason = False, "bounds or deletion"
        try:
            bounds = CacheBounds(terms.max_entries, terms.max_bytes)
            kept = await self._store.put(entry, bounds, owner, ticket.epoch)
        except StateUnavailableError:
            reason = "unavailable"
        finally:
            if ticket.leading:
                self._flights.forget(entry.tenant, entry.key, None if kept else UNSHARED_MS)
        if kept:
            self._metrics.stored(entry.tenant)
        else:
            self._metrics.unstored(entry.tenant, reason)

    async def _discard(self, entry: CacheEntry) -> None:
        try:
            await self._store.discard(entry.tenant, entry.key)
        except StateUnavailableError as error:
            logger.warning("a poisoned entry stays for now: %s", error)

    def _new_entry(self, ticket: Ticket, stored: StoredAnswers) -> CacheEntry:
        created_ms = int(1000 * self._clock.now())
        keys, controls = ticket.keys, ticket.request.cache
        return CacheEntry(
            f"{keys.exact}-{uuid.uuid4().hex[:12]}",
            ticket.tenant,
            keys.exact,
            keys.partition,
            keys.question if controls.semantic and _is_complete(stored) else "",
            ticket.model_version,
            ticket.request.template_version or "",
            created_ms,
            created_ms + int(1000 * ticket.ttl_s),
            encode_answers(stored),
        )

    def _min_created_ms(self, ticket: Ticket) -> int:
        """Returns the time since which an entry must have been created, by the request's ``max_age_s``."""
        max_age_s = ticket.request.cache.max_age_s
        return 0 if max_age_s is None else int(1000 * (self._clock.now() - max_age_s))

    def _compare(self, ticket: Ticket, stored: StoredAnswers) -> None:
        """Compares the generated answer with that of a semantic hit or of a near miss, and has the index learn of it.
        What it finds counts as often as such look-ups are not compared."""
        if ticket.shadow is not None:
            self._compared(ticket, ticket.shadow, stored, HitJudge.SHADOW, self._config.shadow_share)
        elif ticket.near is not None and len(self._writes) < MAX_WRITES:
            self._write(self._compare_near(ticket, ticket.near, stored))

    async def _compare_near(self, ticket: Ticket, near: SemanticMatch, stored: StoredAnswers) -> None:
        with contextlib.suppress(StateUnavailableError):  # then it is not compared
            hit, _ = await self._matched(ticket, near)
            if hit is not None:
                self._compared(ticket, hit, stored, HitJudge.NEAR_MISS, self._config.near_miss_share)

    def _compared(self, ticket: Ticket, hit: Hit, stored: StoredAnswers, judge: HitJudge, share: float) -> None:
        wrong = not same_answers(hit.stored.answers, stored.answers)
        score = None if hit.match is None else hit.match.score
        question, entry = ticket.keys.question, hit.entry
        self.judge(HitFeedback(entry.tenant, entry.id, wrong, judge, score, question, 1 / share))

    def judge(self, feedback: HitFeedback) -> None:
        """Counts whether a hit or a near miss was right, and sends the feedback to the index in the background."""
        self._metrics.judged(feedback.tenant, feedback.judge.value, wrong=feedback.wrong)
        if self._index is not None and len(self._writes) < MAX_WRITES:
            self._write(self._tell_index(self._index, feedback))

    async def tell(self, feedback: HitFeedback) -> None:
        """Waits until the index has the feedback, and counts it. Raises SemanticUnavailableError if the index does not
        answer: then the client says it again, and it counts once."""
        if self._index is not None:
            await self._index.feedback(feedback)
        self._metrics.judged(feedback.tenant, feedback.judge.value, wrong=feedback.wrong)

    async def _tell_index(self, index: SemanticIndex, feedback: HitFeedback) -> None:
        try:
            await index.feedback(feedback)
        except SemanticUnavailableError as error:
            logger.warning("the judgement of a hit is lost: %s", error)

    def _write(self, work: Coroutine[None, None, None]) -> None:
        """Runs ``work`` beside the requests."""
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)


def _is_complete(stored: StoredAnswers) -> bool:
    """Returns whether every answer has ended by itself. Only then they are given to another question: its own answer
    may be shorter, and end before ``max_tokens``."""
    return all(answer.finish_reason is FinishReason.STOP for answer in stored.answers)
