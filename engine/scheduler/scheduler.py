"""One token budget for prefill and decode together (Agrawal et al., OSDI 2024, Sarathi-Serve), shared by classes and
tenants. Each step:

1. who waits past its deadline leaves;
2. the first in the queue may displace running sequences of a lower class, if it cannot start otherwise;
3. every decoding sequence computes what its last step gave it, mostly one token; when blocks run out, the weakest gives
   its own up;
4. running prompts go on, a chunk each; long ones at a pace at which decodes do not suffer;
5. waiting sequences are started while their whole prompt fits, with one block to spare for each that runs: a prompt
   admitted by halves, or into the last block, would be preempted before it answers. None in a step that ran out of
   blocks.

Who goes first is in ``queue``, who gives way in ``preemption``, what tenants owe in ``fairness``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.api import Priority
from engine.kv.cache import KVCache
from engine.kv.format import BlockCopy
from engine.kv.pool import KVIntegrityError
from engine.scheduler.admission_rate import AdmissionRate
from engine.scheduler.fairness import INPUT_COST, OUTPUT_COST, TokenCounters
from engine.scheduler.limits import Limits
from engine.scheduler.preemption import Blocks, displace, strength, weakest
from engine.scheduler.prefill_budget import PrefillBudget
from engine.scheduler.queue import WaitingQueue, level
from engine.scheduler.queue_limit import QueueState
from engine.scheduler.step_plan import Chunk, Load, Plan
from engine.sequence import Sequence, Status

MAX_SCORED_TOKENS = 64  # tokens of one prompt in a step whose logits are all wanted


@dataclass(slots=True)
class _StepBudget:
    """Tokens left to the prompts of one step."""

    tokens: int
    long: int  # of these, for prompts that take more than one step
    chunks: list[Chunk] = field(default_factory=list)
    load: list[int] = field(default_factory=lambda: [0, 0])  # tokens of short and of long prompts

    def take(self, sequence: Sequence, most: int) -> bool:
        """Plans the sequence's next tokens, ``most`` at most; False if there is no budget for one."""
        length = min(sequence.pending, most, self.tokens, self.long if sequence.chunked else self.tokens)
        if length < 1:
            return False
        self.chunks.append(Chunk(sequence, sequence.computed, length))
        self.tokens -= length
        if sequence.chunked:
            self.long -= length
        self.load[sequence.chunked] += length
        return True


class Scheduler:
    """Decides every step of one engine. Instants are seconds of one clock that never goes back."""

    def __init__(self, cache: KVCache, limits: Limits) -> None:
        self.cache = cache
        self.limits = limits
        self.running: list[Sequence] = []  # in order of start
        self.counters = TokenCounters(limits.weights)
        self.waiting = WaitingQueue(self.counters, cache.cached_share, limits.ageing_s, limits.prefix_bonus_s)
        self.cached_tokens = 0  # of all prompts so far, found in the prefix cache when first started
        self.preemptions = 0
        self._copies: list[BlockCopy] = []  # of forks, for the next step
        self._admission_rate = AdmissionRate()
        slowdown = limits.decode_slowdown
        self._prefill_budget = None if slowdown is None else PrefillBudget(slowdown, limits.prefill_chunk)

    def __repr__(self) -> str:
        return f"Scheduler(running={len(self.running)}, waiting={len(self.waiting)}, {self.cache!r})"

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence into the queue; its ``arrived`` is set."""
        sequence.queued_at = sequence.arrived
        self.counters.arrive(sequence.tenant)
        self.waiting.push(sequence)

    def add_fork(self, child: Sequence, now: float) -> None:
        """Puts a fork for which there was no room into the queue. It begins to wait ``now``, and its prompt has been
        counted and paid for."""
        child.queued_at = now
        child.cached_tokens = child.prompt_length
        self.counters.arrive(child.tenant)
        self.waiting.push(child)

    def remove(self, sequence: Sequence) -> None:
        """Ends a sequence wherever it is; its blocks are available at once."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
            self.cache.release(sequence)
        elif sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        sequence.move(Status.ENDED)
        self.counters.leave(sequence.tenant)

    def fork(self, parent: Sequence, child: Sequence) -> bool:
        """Starts ``child`` on the blocks of ``parent``: it has the same tokens but for the last, which is
        yet to be computed. False, and nothing changed, if there is no room: then ``add_fork`` queues it, and it finds
        what it can in the prefix cache. Raises ValueError for a child that is no such thing."""
        if parent.status is not Status.RUNNING:
            return False  # its blocks are gone
        alike = child.cache_salt == parent.cache_salt and child.tokens[:-1] == parent.tokens[: parent.computed]
        if child.generated < 1 or not alike:
            raise ValueError("a child has its parent's salt and computed tokens, and one token of its own")
        if len(self.running) >= self.limits.sequences:
            return False
        copies = self.cache.fork(parent, child, spare=len(self.running))
        if copies is None:
            return False
        self._copies += copies
        self.counters.arrive(child.tenant)
        child.cached_tokens = child.prompt_length
        self.running.append(child)
        child.move(Status.RUNNING)
        child.level, child.generated_at_admission = parent.level, child.generated
        return True

    def park(self, sequence: Sequence) -> None:
        """A running beam, all of whose tokens are computed, gives its blocks up: other beams of its search wait for
        some, and it waits for them."""
        self.running.remove(sequence)
        self.cache.release(sequence)
        sequence.move(Status.PARKED)

    def unpark(self, sequence: Sequence, now: float) -> None:
        """A parked beam has got its next token, and a place in the queue."""
        sequence.move(Status.WAITING)
        sequence.queued_at = now
        self.waiting.push(sequence)

    def schedule(self, now: float) -> Plan:
        """Decides the next step and takes the blocks it needs."""
        expired = self.waiting.overdue(now)
        for sequence in expired:
            self.remove(sequence)
        displaced = self._displace(now)
        decodes, preempted, copies = self._decode(now)
        watched = sum(chunk.sequence.priority < Priority.BATCH for chunk in decodes)
        tokens = self.limits.batch_tokens - sum(chunk.length for chunk in decodes)
        budget = _StepBudget(tokens, tokens if not watched else min(tokens, self._long_tokens(len(decodes))))
        self._prefill(budget)
        started, failed = ([], []) if preempted else self._start(now, budget)
        chunks = (*decodes, *budget.chunks)
        for chunk in chunks:
            if chunk.samples:
                sequence = chunk.sequence
                tokens = chunk.length - chunk.draft if sequence.decoding else 1 + sequence.branches
                self.counters.charge(sequence.tenant, OUTPUT_COST * tokens)
        short, long = budget.load
        load = Load(len(decodes), watched, long, short, sum(chunk.length - 1 for chunk in decodes))
        return Plan(chunks, copies, tuple(started), (*displaced, *preempted), tuple(expired), tuple(failed), load)

    def computed(self, chunk: Chunk, accepted: int = 0) -> None:
        """The chunk has been run: its keys and values may be shared from now on. ``right`` of its tokens were
        guessed."""
        self.counters.charge(chunk.sequence.tenant, OUTPUT_COST * accepted)
        chunk.sequence.computed = chunk.end
        self.cache.commit(chunk.sequence)

    def requeue(self, sequence: Sequence, now: float) -> None:
        """A running sequence is to be computed again from its start."""
        self._preempt(sequence, now)

    def took(self, load: Load, seconds: float) -> None:
        """A step of this load took ``seconds``; paces long prompts from now on."""
        if self._prefill_budget is not None:
            self._prefill_budget.observe(load, seconds)

    def queue_state(self) -> QueueState:
        """The queue, for those who decide whether it takes one more."""
        return QueueState(self.waiting.requests, self.waiting.by_line(), self._admission_rate.wait_s(len(self.waiting)))

    def wait_s(self) -> float:
        """Estimated wait of one more sequence, in seconds."""
        return self._admission_rate.wait_s(len(self.waiting))

    def _displace(self, now: float) -> list[Sequence]:
        if not self.running or not self.waiting:
            return []
        candidate = next(self.waiting.candidates(now))
        victims = displace(
            candidate,
            level(candidate, now, self.limits.ageing_s),
            candidate.waited(now) >= self.limits.ageing_s,
            self.running,
            self.limits.cooldown,
            lambda: self._shortage(candidate),
            self.cache.exclusive,
        )
        for victim in victims:
            self._preempt(victim, now)
        return victims

    def _shortage(self, candidate: Sequence) -> tuple[int, Blocks]:
        """Rows and blocks that keep a sequence from starting; none if something else does."""
        none = (0,) * len(self.cache.groups)
        try:
            if self._too_many_long(candidate):
                return 0, none
            missing = self.cache.lacks(candidate, len(self.running))
        except Exception:  # noqa: BLE001 - it raises again in _start, and there ends the sequence
            return 0, none
        return len(self.running) + 1 - self.limits.sequences, missing

    def _decode(self, now: float) -> tuple[list[Chunk], list[Sequence], tuple[BlockCopy, ...]]:
        chunks: list[Chunk] = []
        preempted: list[Sequence] = []
        copies, self._copies = self._copies, []
        decoding = [sequence for sequence in self.running if sequence.decoding]
        spare = self.limits.batch_tokens - len(decoding)  # for those who compute more than one
        if self.cache.available < sum(map(self.cache.needs, decoding)):
            for sequence in decoding:
                sequence.draft = []  # nobody gives way to a guess
            # The strongest first, so that whoever gives way has not been planned yet.
            decoding.sort(key=lambda sequence: strength(sequence, self.limits.cooldown))
        for sequence in decoding:
            while sequence.status is Status.RUNNING and (prepared := self.cache.prepare(sequence)) is None:
                preempted.append(weakest(self.running, self.limits.cooldown))
                self._preempt(preempted[-1], now)
            if sequence.status is Status.RUNNING:
                more = min(sequence.pending - 1, spare)
                drafts = min(len(sequence.draft), spare - more) if more == sequence.pending - 1 else 0
                spare -= more + drafts
                chunks.append(Chunk(sequence, sequence.computed, 1 + more + drafts, drafts))
                copies += prepared or ()
        return chunks, preempted, tuple(copies)

    def _prefill(self, budget: _StepBudget) -> None:
        prompts = [sequence for sequence in self.running if not sequence.decoding and not sequence.held]
        for sequence in sorted(prompts, key=lambda sequence: sequence.level):
            if self.cache.prepare(sequence) != []:  # None, or copies: only forks share what is still written
                raise KVIntegrityError(f"{sequence.request_id}: blocks that were set aside for a prompt are missing")
            budget.take(sequence, self._most(sequence))

    def _start(self, now: float, budget: _StepBudget) -> tuple[list[Sequence], list[tuple[Sequence, Exception]]]:
        """Those that start for the first time, and those whom looking at raised an error."""
        first: list[Sequence] = []
        failed: list[tuple[Sequence, Exception]] = []
        passed: list[Sequence] = []  # they do not fit
        starts = 0
        for sequence in self.waiting.candidates(now) if self.waiting else ():
            if budget.tokens < 1 or len(self.running) >= self.limits.sequences:
                break
            try:
                if self._too_many_long(sequence, budget) or self._overdrawn(sequence, passed):
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
            budget.take(sequence, self._most(sequence))
            starts += 1
            for other in passed:
                other.overtaken += 1
            if any(other.overtaken >= self.limits.overtakes for other in passed):
                break
        self._admission_rate.observe(now, starts, len(self.waiting))
        return first, failed

    def _most(self, sequence: Sequence) -> int:
        """Tokens of its prompt in one step; logits of many at once would take much memory."""
        return (
            min(self.limits.prefill_chunk, MAX_SCORED_TOKENS) if sequence.scores_prompt else self.limits.prefill_chunk
        )

    def _too_many_long(self, sequence: Sequence, budget: _StepBudget | None = None) -> bool:
        """Whether a prompt takes several steps and has to wait for others that do."""
        if len(sequence.tokens) <= self.limits.prefill_chunk:
            return False
        missing = len(sequence.tokens) * (1.0 - self.cache.cached_share(sequence))
        if missing <= self.limits.prefill_chunk:
            return False
        busy = sum(one.chunked and not one.decoding and not one.held for one in self.running)
        return busy >= self.limits.partial_prefills or (budget is not None and budget.long < 1)

    def _overdrawn(self, sequence: Sequence, passed: list[Sequence]) -> bool:
        """Whether its tenant has had a step's worth more than one whose sequence it would pass: small requests must not
        live off large ones that do not fit."""
        own = self.counters.of(sequence.tenant)
        return any(own > self.counters.of(other.tenant) + self.limits.batch_tokens for other in passed)

    def _run(self, sequence: Sequence, now: float) -> None:
        """Moves an admitted sequence from the queue among the running."""
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.move(Status.RUNNING)
        sequence.level = level(sequence, now, self.limits.ageing_s)
        sequence.waited_s = sequence.waited(now)
        sequence.generated_at_admission = sequence.generated
        sequence.chunked = sequence.pending > self.limits.prefill_chunk
        if sequence.cached_tokens is None:
            sequence.cached_tokens = min(sequence.computed, sequence.prompt_length)
            sequence.miss = self.cache.miss(sequence)
            self.cached_tokens += sequence.cached_tokens
            self.counters.charge(sequence.tenant, INPUT_COST * sequence.pending)

    def _preempt(self, victim: Sequence, now: float) -> None:
        if victim.held:
            self.park(victim)
            return
        self.running.remove(victim)
        self.cache.release(victim)
        victim.draft = []
        victim.move(Status.WAITING)
        victim.queued_at = now
        victim.preemptions += 1
        self.preemptions += 1
        self.waiting.push(victim)

    def _long_tokens(self, decodes: int) -> int:
        if self._prefill_budget is None:
            return self.limits.batch_tokens
        if any(one.chunked and not one.decoding and not one.held for one in self.running):
            return self._prefill_budget.tokens(decodes)
        return self._prefill_budget.allowed  # for one that may be started now
