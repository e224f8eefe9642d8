"""``PartialPrefills``: the running prompts that are in prefill, and what those of several chunks may have.

Prompts of several chunks, long ones, share a budget that keeps decodes fast (``prefill_budget``), and few of them are
in prefill at the same time (vLLM's ``max_num_partial_prefills``).
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.kv.cache import KVCache
from engine.scheduler.limits import Limits
from engine.scheduler.prefill_budget import PrefillBudget
from engine.scheduler.step_budget import StepBudget
from engine.scheduler.step_plan import Load
from engine.scheduler.tenant_limits import BEHIND_ALL, TenantLimits
from engine.sequence import Sequence, Status


def in_prefill(sequence: Sequence) -> bool:
    """Returns whether a sequence runs, and has tokens of its prompt left to compute."""
    return sequence.status is Status.RUNNING and not sequence.decoding and not sequence.held


class PartialPrefills:
    """The sequences in prefill of one scheduler. ``running`` is its list of running sequences."""

    def __init__(self, limits: Limits, cache: KVCache, running: list[Sequence], tenant_limits: TenantLimits) -> None:
        self._limits = limits
        self._cache = cache
        self._running = running
        self._tenant_limits = tenant_limits
        self._planned: list[Sequence] = []  # running sequences that were not decoding in the last plan
        slowdown = limits.decode_slowdown
        self._budget = None if slowdown is None else PrefillBudget(slowdown, limits.prefill_chunk)

    def __iter__(self) -> Iterator[Sequence]:
        """Yields the sequences that are still in prefill."""
        return filter(in_prefill, self._planned)

    def __len__(self) -> int:
        return sum(map(in_prefill, self._planned))

    def begin_step(self, prompts: list[Sequence]) -> None:
        """Takes over ``prompts`` as all that are in prefill."""
        self._planned = prompts

    def add(self, sequence: Sequence) -> None:
        """Adds a sequence that was admitted in this step."""
        self._planned.append(sequence)

    def observe(self, load: Load, seconds: float) -> None:
        """Records that a step with this ``load`` took ``seconds``, by which chunks of long prompts are limited."""
        if self._budget is not None:
            self._budget.observe(load, seconds)

    @property
    def long_prompts(self) -> int:
        """Number of prompts of several chunks that are in prefill."""
        return sum(each.chunked for each in self)

    def long_prompt_tokens(self) -> tuple[int, int]:
        """Returns how many tokens of long prompts a step may compute: alone, and beside decodes that users wait for."""
        alone = min(self._limits.batch_tokens, self._limits.partial_prefills * self._limits.prefill_chunk)
        return alone, alone if self._budget is None else min(alone, self._budget.allowed)

    def long_tokens(self, decodes: int) -> int:
        """Returns how many tokens of long prompts the step may compute beside ``decodes`` decodes."""
        if self._budget is None:
            return self._limits.batch_tokens
        if self._long():
            return self._budget.tokens(decodes)
        return self._budget.allowed  # for a prompt that may be admitted in this step

    def too_many_long(self, sequence: Sequence, budget: StepBudget | None = None) -> bool:
        """Returns whether a prompt takes several steps and has to wait for others that do. One more than
        ``partial_prefills`` may start if its tenant has none, and not all of those are of higher classes. Those behind
        all others do not count, unless its own tenant is limited too."""
        if len(sequence.tokens) <= self._limits.prefill_chunk:
            return False
        missing = len(sequence.tokens) * (1.0 - self._cache.cached_share(sequence))
        if missing <= self._limits.prefill_chunk:
            return False
        limited = sequence.tenant in self._tenant_limits.tenants
        busy = [one for one in self._long() if limited or self._tenant_limits.standing(one) != BEHIND_ALL]
        if all(one.tenant != sequence.tenant for one in busy) and any(one.rank >= sequence.rank for one in busy):
            return len(busy) > self._limits.partial_prefills  # without a token in this step, if those have them all
        return len(busy) >= self._limits.partial_prefills or (budget is not None and budget.long < 1)

    def leave_tokens(self, budget: StepBudget, standing: int) -> bool:
        """Returns whether limited prompts that are in prefill leave tokens of the step for another one with this
        ``standing``."""
        left = budget.left(standing)
        if left < 1:
            return False
        owed = sum(one.pending for one in self if self._tenant_limits.standing(one) is not None)
        return left > owed - budget.limited_taken

    def _long(self) -> list[Sequence]:
        """Returns the running sequences that are in prefill for several steps."""
        return [one for one in self._running if one.chunked and not one.decoding and not one.held]
