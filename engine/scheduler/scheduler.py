"""The scheduler. Each step has one token budget for prefill and decode together (Agrawal et al., OSDI 2024,
Sarathi-Serve). To plan a step, the scheduler

1. removes waiting sequences whose deadline has passed, and relegates those whose objective has;
2. preempts running sequences of a lower class if the first waiting sequence cannot be admitted otherwise;
3. gives every decoding sequence its pending tokens, mostly one; if blocks run out, it preempts the weakest sequences;
4. gives every running prefill its next chunk; long prompts share a budget that keeps decodes fast (``prefill_budget``);
5. admits waiting sequences whose whole prompt fits into free blocks and leaves one block per running sequence. A prompt
   admitted with fewer would be preempted before it answers. None are admitted in a step that ran out of blocks.

The order of the waiting is in ``queue``, the choice of victims in ``preemption``, the fairness among tenants in
``fairness``, and what a tenant that crowds the engine may have in ``tenant_limits``.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from engine.api import MAX_PREEMPTIONS, Priority
from engine.kv.cache import KVCache
from engine.kv.format import BlockCopy
from engine.kv.pool import KVIntegrityError
from engine.scheduler.admission_rate import AdmissionRate
from engine.scheduler.fairness import INPUT_COST, OUTPUT_COST, TokenCounters
from engine.scheduler.limits import Limits
from engine.scheduler.partial_prefills import PartialPrefills, in_prefill
from engine.scheduler.preemption import Blocks, displace, strength, weakest
from engine.scheduler.queue import WaitingQueue, level, reported_class
from engine.scheduler.queue_limit import QueueState
from engine.scheduler.step_budget import StepBudget
from engine.scheduler.step_plan import Chunk, Load, Plan
from engine.scheduler.tenant_limits import TenantLimits
from engine.sequence import Sequence, Status

MAX_SCORED_TOKENS = 64  # most tokens of a prompt in one step if log probabilities of the prompt are wanted


class Scheduler:
    """Decides every step of one engine (vLLM's ``Scheduler``), and owns the waiting queue, the running sequences and
    their KV blocks. Instants are seconds of one monotonic clock, passed in by the caller."""

    def __init__(self, cache: KVCache, limits: Limits) -> None:
        self.cache = cache
        self.limits = limits
        self.running: list[Sequence] = []  # in order of admission
        self.counters = TokenCounters(limits.weights)
        self.waiting = WaitingQueue(
            self.counters, cache.cached_share, limits.ageing_s, limits.prefix_bonus_s, limits.prefill_chunk
        )
        self.cached_tokens = 0  # prompt tokens found in the prefix cache at first admissions, in all
        self.preemptions = 0
        self.relegations = 0
        self._tenant_limits = TenantLimits(limits, self.counters, cache.largest.total * cache.block_size)
        self._prefills = PartialPrefills(limits, cache, self.running, self._tenant_limits)
        self._copies: list[BlockCopy] = []  # block copies of forks, which the next step makes first
        self._admission_rate = AdmissionRate()

    def __repr__(self) -> str:
        return f"Scheduler(running={len(self.running)}, waiting={len(self.waiting)}, {self.cache!r})"

    def add(self, sequence: Sequence) -> None:
        """Adds a new sequence to the waiting queue. Its ``arrived`` must be set."""
        sequence.queued_at = sequence.arrived
        self._arrive(sequence)
        self.waiting.push(sequence)

    def add_fork(self, child: Sequence, now: float) -> None:
        """Adds a fork that could not run at once to the waiting queue, at the instant ``now``. Its prompt counts as
        cached, because it has been counted and charged with its parent."""
        child.queued_at = now
        child.cached_tokens = child.prompt_length
        self._arrive(child)
        self.waiting.push(child)

    def remove(self, sequence: Sequence) -> None:
        """Ends a sequence in any status and frees its blocks."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
            self.cache.release(sequence)
        elif sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        sequence.move(Status.ENDED)
        self.counters.leave(sequence.tenant)
        self._tenant_limits.leave(sequence)

    def fork(self, parent: Sequence, child: Sequence) -> bool:
        """Starts ``child`` on shared blocks of ``parent``; it has the computed tokens of ``parent`` and one more, which
        is pending. Returns False and changes nothing if ``parent`` is not running or there is no room; the caller may
        then queue ``child`` with ``add_fork``, to use its blocks in the prefix cache. Raises ValueError if tokens or
        salt do not fit."""
        if parent.status is not Status.RUNNING:
            return False  # it has no blocks to share
        alike = child.cache_salt == parent.cache_salt and child.tokens[:-1] == parent.tokens[: parent.computed]
        if child.generated < 1 or not alike:
            raise ValueError("a child has its parent's salt and computed tokens, and one token of its own")
        if len(self.running) >= self.limits.sequences:
            return False
        copies = self.cache.fork(parent, child, spare=len(self.running))
        if copies is None:
            return False
        self._copies += copies
        self._arrive(child)
        child.cached_tokens = child.prompt_length
        self.running.append(child)
        child.move(Status.RUNNING)
        child.level, child.generated_at_admission = parent.level, child.generated
        return True

    def park(self, sequence: Sequence) -> None:
        """Frees the blocks of a running beam without pending tokens, because other beams of its search wait for blocks.
        It leaves the running sequences, and does not join the waiting queue."""
        self.running.remove(sequence)
        self.cache.release(sequence)
        sequence.move(Status.PARKED)

    def unpark(self, sequence: Sequence, now: float) -> None:
        """Adds a parked beam, which has got its next token, to the waiting queue."""
        sequence.move(Status.WAITING)
        sequence.queued_at = now
        self.waiting.push(sequence)

    def schedule(self, now: float) -> Plan:
        """Plans the next step and allocates the blocks that it needs."""
        expired = self.waiting.overdue(now)
        for sequence in expired:
            self.remove(sequence)
        self.relegations += self.waiting.relegate(now)
        self._tenant_limits.begin_step(self.waiting, {one.tenant for one in self._prefills}, now)
        displaced = self._displace(now)
        decodes, preempted, copies = self._decode(now)
        watched = sum(chunk.sequence.priority < Priority.BATCH for chunk in decodes)
        tokens = self.limits.batch_tokens - sum(chunk.length for chunk in decodes)
        prompts = [one for one in self.running if in_prefill(one)] if len(decodes) < len(self.running) else []
        budget = StepBudget(
            tokens,
            tokens if not watched else min(tokens, self._prefills.long_tokens(len(decodes))),
            self._tenant_limits.step_tokens,
            self._tenant_limits.others_rank(prompts),
        )
        self._prefill(budget, prompts)
        started, failed = ([], []) if preempted else self._start(now, budget)
        self.counters.charge_generated(decodes, budget.chunks)
        chunks = (*decodes, *budget.chunks)
        short, long = budget.load
        load = Load(len(decodes), watched, long, short, sum(chunk.length - 1 for chunk in decodes))
        return Plan(chunks, copies, tuple(started), (*displaced, *preempted), tuple(expired), tuple(failed), load)

    def computed(self, chunk: Chunk, accepted: int = 0) -> None:
        """Records that ``chunk`` has been computed, so that other sequences may share its KV. ``accepted`` of its
        tokens were draft tokens."""
        if accepted:
            self.counters.charge(chunk.sequence.tenant, OUTPUT_COST * accepted)
        chunk.sequence.computed = chunk.end
        self.cache.commit(chunk.sequence)

    def requeue(self, sequence: Sequence, now: float) -> None:
        """Preempts a running sequence, so that it is computed again."""
        self._preempt(sequence, now)

    def took(self, load: Load, seconds: float) -> None:
        """Records that a step with this ``load`` took ``seconds``, by which chunks of long prompts are limited."""
        self._prefills.observe(load, seconds)

    def queue_state(self) -> QueueState:
        """Returns the lengths of the waiting queue and the estimated wait, for ``check_room``."""
        return QueueState(self.waiting.requests, self.waiting.by_line(), self._admission_rate.wait_s(len(self.waiting)))

    @property
    def decoding(self) -> int:
        """Number of running sequences that are not in prefill."""
        return len(self.running) - len(self._prefills)

    def queued_tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the prompt tokens that are still to be computed by class, INTERACTIVE first: those of prompts that
        one chunk completes, then those of longer ones. Takes time for the classes and the prompts in prefill alone."""
        short, long = self.waiting.short_tokens.copy(), self.waiting.long_tokens.copy()
        for sequence in self._prefills:
            (long if sequence.chunked else short)[reported_class(sequence.level)] += sequence.pending
        return tuple(short), tuple(long)

    @property
    def long_prompts(self) -> int:
        """Number of prompts of several chunks that wait or are in prefill."""
        return self.waiting.long_prompts + self._prefills.long_prompts

    @property
    def long_at_once(self) -> int:
        """Number of prompts of several chunks that have a chunk in the same step, at present."""
        alone, beside_decodes = self.long_prompt_tokens()
        tokens = beside_decodes if self.decoding else alone
        return max(1, min(self.limits.partial_prefills, tokens // self.limits.prefill_chunk))

    def long_prompt_tokens(self) -> tuple[int, int]:
        """Returns how many tokens of long prompts a step may compute: alone, and beside decodes that users wait for."""
        return self._prefills.long_prompt_tokens()

    def wait_s(self) -> float:
        """Returns the estimated wait of one more sequence, in seconds."""
        return self._admission_rate.wait_s(len(self.waiting))

    def _arrive(self, sequence: Sequence) -> None:
        """Counts a sequence that is in the engine from now on."""
        self.counters.arrive(sequence.tenant)
        self._tenant_limits.arrive(sequence)

    def _displace(self, now: float) -> list[Sequence]:
        """Preempts running sequences so that the first waiting one can be admitted, if it may. Returns them."""
        if not self.running or not self.waiting:
            return []
        candidates = self._tenant_limits.candidates(self.waiting, now)
        candidate = next((one for one in candidates if self._tenant_limits.has_place(one, self.running, now)), None)
        if candidate is None:
            return []
        victims = displace(
            candidate,
            now,
            level(candidate, now, self.limits.ageing_s),
            candidate.waited(now) >= self.limits.ageing_s,
            self.running,
            self._tenant_limits.beyond_share(candidate, self.running, now),
            self.limits.cooldown,
            lambda: self._shortage(candidate),
            self.cache.exclusive,
        )
        for victim in victims:
            self._preempt(victim, now)
        return victims

    def _shortage(self, candidate: Sequence) -> tuple[int, Blocks]:
        """Returns how many running sequences and how many blocks per KV cache group must go before ``candidate`` can be
        admitted. Zeros if it cannot be admitted for another reason."""
        none = (0,) * len(self.cache.groups)
        try:
            if self._prefills.too_many_long(candidate):
                return 0, none
            missing = self.cache.lacks(candidate, len(self.running))
        except Exception:  # noqa: BLE001 - _start raises it again, which ends the sequence
            return 0, none
        return len(self.running) + 1 - self.limits.sequences, missing

    def _decode(self, now: float) -> tuple[list[Chunk], list[Sequence], tuple[BlockCopy, ...]]:
        """Plans the decodes and preempts sequences when blocks run out. Returns the chunks, the preempted sequences,
        and the block copies to make before the step."""
        chunks: list[Chunk] = []
        preempted: list[Sequence] = []
        copies, self._copies = self._copies, []
        decoding = [sequence for sequence in self.running if sequence.decoding]
        spare = self.limits.batch_tokens - len(decoding)  # tokens for forced and draft tokens
        unready = self.cache.unready(decoding)
        if unready and self.cache.available < sum(map(self.cache.needs, unready)):
            for sequence in decoding:
                sequence.draft = []  # no sequence is preempted for draft tokens
            # The strongest first, so that a sequence that is preempted has not been planned yet.
            decoding.sort(key=lambda sequence: strength(sequence, self.limits.cooldown))
        for sequence in decoding:
            if sequence in unready:
                copies += self._prepare(sequence, preempted, now)
            if sequence.status is Status.RUNNING:
                more = drafts = 0
                if sequence.draft or sequence.pending > 1:
                    more = min(sequence.pending - 1, spare)
                    drafts = min(len(sequence.draft), spare - more) if more == sequence.pending - 1 else 0
                    spare -= more + drafts
                chunks.append(Chunk(sequence, sequence.computed, 1 + more + drafts, drafts))
        return chunks, preempted, tuple(copies)

    def _prepare(self, sequence: Sequence, preempted: list[Sequence], now: float) -> list[BlockCopy]:
        """Allocates the blocks of a decode. While there are not enough, preempts the weakest sequence, maybe this one,
        and adds it to ``preempted``. Returns the block copies to make before the step."""
        while sequence.status is Status.RUNNING:
            copies = self.cache.prepare(sequence)
            if copies is not None:
                return copies
            preempted.append(weakest(self.running, self.limits.cooldown))
            self._preempt(preempted[-1], now)
        return []

    def _prefill(self, budget: StepBudget, prompts: list[Sequence]) -> None:
        """Plans a chunk for each running sequence of ``prompts``, which are in prefill: those of limited tenants last,
        higher classes first, and in a class the tenants in their turn. Tenants with long prompts of a class share the
        tokens for these."""
        self._prefills.begin_step(prompts)
        if not prompts:
            return
        standings = {one: self._tenant_limits.standing(one) for one in prompts}

        def of_class(one: Sequence) -> tuple[bool, int]:
            return standings[one] is not None, one.level

        prompts = sorted(prompts, key=lambda one: (*of_class(one), self.counters.of(one.tenant)))
        for _, group in groupby(prompts, of_class):
            alike = list(group)
            long = Counter(one.tenant for one in alike if one.chunked)
            parts = dict.fromkeys(long, -(-budget.long // max(1, len(long))))
            for sequence in alike:
                # Neither None, since its blocks are allocated, nor copies, since only forks share a block with room.
                if self.cache.prepare(sequence) != []:
                    raise KVIntegrityError(f"{sequence.request_id}: blocks allocated for a prompt are missing")
                most = min(self._most(sequence), parts.get(sequence.tenant, 0) if sequence.chunked else budget.tokens)
                taken = budget.take(sequence, most, standings[sequence])
                if sequence.chunked:
                    parts[sequence.tenant] -= taken

    def _start(self, now: float, budget: StepBudget) -> tuple[list[Sequence], list[tuple[Sequence, Exception]]]:
        """Admits waiting sequences. Returns those admitted for the first time, and those that raised an error, with the
        error."""
        first: list[Sequence] = []
        failed: list[tuple[Sequence, Exception]] = []
        passed: list[Sequence] = []  # sequences that do not fit
        starts = 0
        for sequence in self._tenant_limits.candidates(self.waiting, now) if self.waiting else ():
            if budget.tokens < 1 or len(self.running) >= self.limits.sequences:
                break
            standing = self._tenant_limits.standing_waiting(sequence, now)
            if standing is not None and not (
                self._tenant_limits.has_place(sequence, self.running, now)
                and self._prefills.leave_tokens(budget, standing)
            ):
                continue
            try:
                if self._prefills.too_many_long(sequence, budget):
                    continue
                if passed and self.counters.is_ahead(sequence, passed, self.limits.batch_tokens):
                    continue
                fits = self.cache.admit(sequence, spare=len(self.running))
            except Exception as error:  # noqa: BLE001 - the fault boundary of a sequence: it fails alone
                failed.append((sequence, error))
                self.remove(sequence)
                continue
            if not fits:
                passed.append(sequence)
                if sequence.overtaken >= self.limits.overtakes:
                    break
                continue
            if sequence.cached_tokens is None:
                first.append(sequence)
            self._run(sequence, now)
            budget.take(sequence, self._most(sequence), standing)
            starts += 1
            for other in passed:
                other.overtaken += 1
            if any(other.overtaken >= self.limits.overtakes for other in passed):
                break
        self._admission_rate.observe(now, starts, len(self.waiting))
        return first, failed

    def _most(self, sequence: Sequence) -> int:
        """Returns the most tokens of a prompt in one step: fewer if prompt log probabilities are wanted, because a row
        of logits for each token takes much memory."""
        return (
            min(self.limits.prefill_chunk, MAX_SCORED_TOKENS) if sequence.scores_prompt else self.limits.prefill_chunk
        )

    def _run(self, sequence: Sequence, now: float) -> None:
        """Moves a sequence whose blocks are allocated from the waiting queue to the running sequences."""
        self.waiting.remove(sequence)
        self.running.append(sequence)
        self._prefills.add(sequence)
        sequence.move(Status.RUNNING)
        sequence.level = level(sequence, now, self.limits.ageing_s)
        sequence.waited_s = sequence.waited(now)
        sequence.generated_at_admission = sequence.generated
        sequence.chunked = sequence.pending > self.limits.prefill_chunk
        if sequence.cached_tokens is None:
            sequence.first_wait_s = sequence.waited_s
            sequence.cached_tokens = min(sequence.computed, sequence.prompt_length)
            sequence.miss = self.cache.miss(sequence)
            self.cached_tokens += sequence.cached_tokens
            self.counters.charge(sequence.tenant, INPUT_COST * sequence.pending)

    def _preempt(self, victim: Sequence, now: float) -> None:
        """Frees the blocks of a running sequence and puts it back into the waiting queue. A beam without pending tokens
        is parked."""
        if victim.held:
            self.park(victim)
            return
        self.running.remove(victim)
        self.cache.release(victim)
        victim.draft = []
        victim.move(Status.WAITING)
        victim.queued_at = now
        victim.preemptions += 1
        if len(victim.preempted_at) < MAX_PREEMPTIONS:
            victim.preempted_at.append(now)
        self.preemptions += 1
        self.waiting.push(victim)
