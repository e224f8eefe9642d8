"""One token budget for prefill and decode together (Agrawal et al. 2024, Sarathi-Serve).

Each step, in order of arrival:

1. every decoding sequence computes its one token; when blocks run out, the sequence that arrived last gives up its own
   and will be recomputed (the one that arrived first never does, so there is always progress);
2. running prompts go on, a chunk each;
3. waiting sequences are admitted while their whole prompt fits, with one block to spare for each that runs: a prompt
   admitted by halves, or into the last block, would be preempted before it answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.kv.cache import KVCache
from engine.scheduler.plan import Chunk, Plan
from engine.sequence import Sequence, Status


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one step: tokens in all, tokens of one prompt, sequences that hold blocks."""

    batch_tokens: int
    prefill_chunk: int
    sequences: int


class Scheduler:
    """Queues of sequences, both in order of arrival."""

    def __init__(self, cache: KVCache, limits: Limits) -> None:
        self.cache = cache
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.cached_tokens = 0  # of all prompts so far, found in the prefix cache when first admitted

    def __repr__(self) -> str:
        return f"Scheduler(running={len(self.running)}, waiting={len(self.waiting)}, {self.cache.pool!r})"

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence at the end of the queue."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Ends a sequence wherever it is; its blocks are available at once."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
            self.cache.release(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.move(Status.ENDED)

    def schedule(self) -> Plan:
        """Decides the next step and takes the blocks it needs."""
        decodes, preempted = self._decode()
        budget = self.limits.batch_tokens - len(decodes)
        prefills = self._prefill(budget)
        budget -= sum(chunk.length for chunk in prefills)
        admitted = [] if preempted else self._admit(budget)
        return Plan((*decodes, *prefills, *admitted), tuple(preempted))

    def computed(self, chunk: Chunk) -> None:
        """The chunk has been run: its keys and values may be shared from now on."""
        chunk.sequence.computed = chunk.end
        self.cache.commit(chunk.sequence)

    def _decode(self) -> tuple[list[Chunk], list[Sequence]]:
        chunks: list[Chunk] = []
        preempted: list[Sequence] = []
        for sequence in tuple(self.running):
            if not sequence.decoding:
                continue
            while sequence.status is Status.RUNNING and not self.cache.grow(sequence):
                preempted.append(self._preempt_last())
            if sequence.status is Status.RUNNING:
                chunks.append(Chunk(sequence, sequence.computed, 1))
        return chunks, preempted

    def _prefill(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for sequence in self.running:
            if not sequence.decoding and budget > 0:
                chunks.append(self._chunk(sequence, budget))
                budget -= chunks[-1].length
        return chunks

    def _admit(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self.waiting and budget > 0 and len(self.running) < self.limits.sequences:
            sequence = self.waiting[0]
            if not self.cache.admit(sequence, reserve=len(self.running)):
                break
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.move(Status.RUNNING)
            if sequence.cached_tokens is None:
                sequence.cached_tokens = min(sequence.computed, sequence.prompt_length)
                self.cached_tokens += sequence.cached_tokens
            chunks.append(self._chunk(sequence, budget))
            budget -= chunks[-1].length
        return chunks

    def _chunk(self, sequence: Sequence, budget: int) -> Chunk:
        return Chunk(sequence, sequence.computed, min(sequence.pending, self.limits.prefill_chunk, budget))

    def _preempt_last(self) -> Sequence:
        """The victim has not been planned yet: those planned arrived earlier."""
        victim = self.running.pop()
        self.cache.release(victim)
        victim.move(Status.WAITING)
        self.waiting.appendleft(victim)
        return victim
