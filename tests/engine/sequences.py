"""A scheduler without an engine: sequences by hand, time by hand, and a model of what every KV slot holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from engine.api import Priority, SamplingParams
from engine.kv.cache import KVCache
from engine.kv.shape import GroupShape
from engine.scheduler.limits import Limits
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Plan
from engine.sequence import Sequence

BLOCK_SIZE = 4
LIMITS = Limits(batch_tokens=16, prefill_chunk=6, sequences=5)


def sequence(
    name: str,
    tokens: list[int],
    max_tokens: int = 8,
    salt: str = "",
    tenant: str = "",
    priority: Priority = Priority.STANDARD,
    arrived: float = 0.0,
    deadline: float | None = None,
    reserve: bool = False,
    objective: float | None = None,
    surplus: bool = False,
) -> Sequence:
    made = Sequence(name, list(tokens), len(tokens), SamplingParams(), salt, 0, max_tokens)
    made.tenant, made.priority, made.arrived, made.deadline, made.reserve = tenant, priority, arrived, deadline, reserve
    made.objective, made.surplus = objective, surplus
    return made


def scheduler(
    blocks: int = 12,
    prefix_caching: bool = True,
    limits: Limits = LIMITS,
    windows: Iterable[int | None] = (None,),
    **changes: object,
) -> Scheduler:
    limits = replace(limits, **changes)  # type: ignore[arg-type]
    shapes = [GroupShape(window, blocks, BLOCK_SIZE, limits.prefill_chunk) for window in windows]
    return Scheduler(KVCache(shapes, prefix_caching), limits)


def finish_step(subject: Scheduler, plan: Plan, forced: int = 0, right: int = 0, held: Sequence | None = None) -> None:
    """What the engine does with a plan, every sampled token being 1; in every other sequence ``forced`` follow it. Of
    drafts the first ``right`` tokens were. The one that is to be ``held`` gets none, as a beam."""
    for place, chunk in enumerate(plan.chunks):
        sequence = chunk.sequence
        guessed = min(right, chunk.draft)
        sequence.tokens += sequence.draft[:guessed]
        sequence.draft = []
        subject.computed(chunk.kept(guessed), guessed)
        if sequence.computed == len(sequence.tokens) and sequence is not held:
            left = sequence.max_tokens - sequence.generated
            sequence.newest = min(left, 1 + forced * (place % 2))
            sequence.tokens += [1] * sequence.newest
            if sequence.generated >= sequence.max_tokens:
                subject.remove(sequence)


def step(subject: Scheduler, now: float = 0.0) -> list[str]:
    """One step; the names of those that were planned, in the order of the plan."""
    plan = subject.schedule(now)
    finish_step(subject, plan)
    return [chunk.sequence.request_id for chunk in plan.chunks]


def run(subject: Scheduler, now: float = 0.0) -> list[str]:
    """Steps until nothing is left; the names in order of their start."""
    order: list[str] = []
    for _ in range(100_000):
        if not subject.running and not subject.waiting:
            return order
        plan = subject.schedule(now)
        order += [one.request_id for one in plan.admitted]
        finish_step(subject, plan)
    raise AssertionError("there is no end to it")
