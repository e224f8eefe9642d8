"""Preemption: which running sequences give up their KV blocks. A preempted sequence goes back to the waiting queue; its
tokens are computed again later, and it continues after them (vLLM's recompute preemption, SGLang's retraction).

It happens when no block is left for a running sequence to grow into, and when a waiting sequence of a higher class
cannot be admitted otherwise. The victim is the least computed sequence of the lowest class. A sequence that has been
preempted is protected until it has generated ``cooldown`` further tokens, as long as there is another victim, so that
computing it again was worth it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Ordered

from engine.api import Priority
from engine.sequence import Sequence

HURRY, HURRY_OVER_BATCH = 0.25, 0.15
"""The part of the time to its objective after which a sequence displaces one of a lower class, and one of class batch.
Before that it waits for one that ends by itself, since what is displaced has to be computed again."""

Blocks = tuple[int, ...]  # numbers of blocks, one for each KV cache group
Strength = tuple[bool, bool, int, int, int, float, str, int]  # sort key of running sequences


def protected(sequence: Sequence, cooldown: int) -> bool:
    """Returns whether a sequence has been preempted and has not generated ``cooldown`` tokens since its admission."""
    return sequence.preemptions > 0 and sequence.generated - sequence.generated_at_admission < cooldown


def strength(sequence: Sequence, cooldown: int) -> Strength:
    """Returns the sort key of running sequences: the sequence that is preempted last comes first.

    The first one is never preempted while there is another, so every preemption lets some sequence continue.
    ``cooldown`` is as in ``protected``, in tokens.
    """
    return (
        not sequence.reserve,
        not protected(sequence, cooldown),
        sequence.level,
        sequence.rank,
        -sequence.computed,
        sequence.arrived,
        sequence.request_id,
        sequence.choice,  # makes keys unique, so that scheduling and preemption agree on the order
    )


def weakest(running: Ordered[Sequence], cooldown: int) -> Sequence:
    """Returns the sequence to preempt when blocks run out. There must be one without reserved blocks. ``cooldown`` is
    as in ``protected``, in tokens."""
    return max((one for one in running if not one.reserve), key=lambda one: strength(one, cooldown))


def displace(
    candidate: Sequence,
    now: float,
    level: int,
    patient: bool,
    running: Ordered[Sequence],
    excess: Mapping[str, int],
    cooldown: int,
    shortage: Callable[[], tuple[int, Blocks]],
    exclusive: Callable[[Sequence], Blocks],
) -> list[Sequence]:
    """Returns the running sequences to preempt so that the waiting ``candidate`` of priority ``level`` can be admitted:
    as few as possible, weakest first. Empty if none are needed, or all that may be preempted are not enough.

    A higher class displaces a lower one. Within a class, a tenant without a running sequence displaces one with
    several, if the candidate is ``patient``: has waited long enough. Tenants give back at once what they have beyond
    their share of the places, ``excess``, to a candidate of the same or a higher class. ``shortage`` returns how many
    running sequences and blocks are in the way; ``exclusive`` returns the blocks that preempting a sequence would free.
    """
    waits_s = 0.0 if candidate.objective is None else candidate.objective - candidate.arrived
    rows = Counter(one.tenant for one in running) if patient else Counter()
    left = Counter(excess) if excess else None

    def gives_way(one: Sequence) -> bool:
        if one.reserve or protected(one, cooldown):
            return False
        if left and left[one.tenant] > 0 and candidate.rank <= one.rank <= one.level:
            return True
        if candidate.rank < one.rank and level < one.level:
            part = HURRY_OVER_BATCH if one.priority is Priority.BATCH else HURRY
            return now >= candidate.arrived + part * waits_s or candidate.surplus < one.surplus
        return patient and not rows[candidate.tenant] and rows[one.tenant] > 1 and candidate.rank <= one.rank

    weak = [one for one in running if gives_way(one)]
    if not weak:
        return []
    missing_rows, missing_blocks = shortage()
    victims: list[Sequence] = []
    for one in sorted(weak, key=lambda one: strength(one, cooldown), reverse=True):
        if missing_rows <= 0 and not any(missing_blocks):
            return victims
        if not gives_way(one):
            continue
        victims.append(one)
        rows[one.tenant] -= 1
        if left:
            left[one.tenant] -= 1
        missing_rows -= 1
        missing_blocks = tuple(max(0, lack - back) for lack, back in zip(missing_blocks, exclusive(one), strict=True))
    return victims if missing_rows <= 0 and not any(missing_blocks) else []
