"""Who gives its blocks up, and for whom. A preempted sequence is computed again later and goes on with the same tokens.

Two occasions: running sequences have no block left to grow into, or a waiting one of a higher class cannot start
otherwise. The victim is the least computed of the lowest class. One that has been a victim is left alone until it has
generated ``cooldown`` tokens more, as long as there is another: what it had to compute again must pay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Ordered

from engine.sequence import Sequence

Blocks = tuple[int, ...]  # numbers of blocks, one for each group of layers
Strength = tuple[bool, bool, int, int, int, float, str, int]


def protected(sequence: Sequence, cooldown: int) -> bool:
    """Whether it has been preempted and not yet made up for it."""
    return sequence.preemptions > 0 and sequence.generated - sequence.generated_at_admission < cooldown


def strength(sequence: Sequence, cooldown: int) -> Strength:
    """Sorts running sequences by their hold on their blocks: the strongest is the smallest.

    The strongest never is a victim while there is another, so at every preemption somebody goes on.
    """
    return (
        not sequence.reserve,
        not protected(sequence, cooldown),
        sequence.level,
        sequence.priority,
        -sequence.computed,
        sequence.arrived,
        sequence.request_id,
        sequence.choice,  # no two are alike: who is planned and who gives way must agree on the order
    )


def weakest(running: Ordered[Sequence], cooldown: int) -> Sequence:
    """The one to give way when blocks run out. There must be one without a reservation."""
    return max((one for one in running if not one.reserve), key=lambda one: strength(one, cooldown))


def displace(
    candidate: Sequence,
    level: int,
    patient: bool,
    running: Ordered[Sequence],
    cooldown: int,
    shortage: Callable[[], tuple[int, Blocks]],
    exclusive: Callable[[Sequence], Blocks],
) -> list[Sequence]:
    """Who makes room for a waiting ``candidate`` of this ``level``: the fewest, weakest first; none if all together
    would not do, or none is needed.

    A higher class displaces a lower one. Within a class, a tenant that runs nothing and has been ``patient`` displaces
    one that runs several. ``shortage`` gives the rows and blocks that are missing; ``exclusive`` the blocks that come
    back with a victim.
    """
    rows = Counter(one.tenant for one in running) if patient else Counter()

    def gives_way(one: Sequence) -> bool:
        if one.reserve or protected(one, cooldown):
            return False
        if candidate.priority < one.priority and level < one.level:
            return True
        return patient and not rows[candidate.tenant] and rows[one.tenant] > 1 and candidate.priority <= one.priority

    weak = [one for one in running if gives_way(one)]
    if not weak:
        return []
    missing_rows, missing_blocks = shortage()
    victims: list[Sequence] = []
    for one in sorted(weak, key=lambda one: strength(one, cooldown), reverse=True):
        if missing_rows <= 0 and not any(missing_blocks):
            return victims
        victims.append(one)
        rows[one.tenant] -= 1
        missing_rows -= 1
        missing_blocks = tuple(max(0, lack - back) for lack, back in zip(missing_blocks, exclusive(one), strict=True))
    return victims if missing_rows <= 0 and not any(missing_blocks) else []
