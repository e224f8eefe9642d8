"""How many tokens of long prompts a step may take beside decodes that somebody watches.

The cost of a prompt's token is not known beforehand: it grows with the context it attends to, and depends on the model
and the machine. So it is learnt from the steps themselves: how long they take with decodes alone, and by how much
longer with so many tokens of long prompts. The next step gets as many as keep it within ``slowdown`` times the former.
(Sarathi-Serve, Agrawal et al., OSDI 2024, fixes the tokens and lets the time vary; this fixes the time.)

A decision: the seconds are passed in.
"""

from __future__ import annotations

from engine.scheduler.step_plan import Load

_FLOOR = 4
"""Tokens. However slow, a prompt goes on."""

_FIRST = 32
"""Tokens of the first chunk beside decodes, before anything is known of their cost."""

_LOOK_AGAIN = 64
"""Steps with long prompts after which one is left to the decodes, to see how long they take alone now."""

_QUICKLY, _SLOWLY = 0.5, 0.1
"""Weights of a new measurement: costs that have risen are believed sooner than costs that have fallen."""

_SURPRISE = 2.0
"""A step may have been slow for reasons of its own: a cost is believed to have changed at most by so much at once."""


class PrefillBudget:
    """Learns from every step of one engine. ``ceiling`` is the most tokens it ever allows."""

    def __init__(self, slowdown: float, ceiling: int) -> None:
        self._slowdown = slowdown
        self._ceiling = ceiling
        self._alone: dict[int, float] = {}  # seconds of steps of decodes only, by the bit length of their number
        self._cost: float | None = None  # seconds of one token of a long prompt
        self._since_alone = 0  # steps with long prompts since one without
        self.allowed = min(_FIRST, ceiling)  # tokens, as of the last step with a long prompt

    def tokens(self, decodes: int) -> int:
        """Tokens of long prompts that the next step may take beside ``decodes``; 0 to leave one step to these."""
        base = self._alone.get(decodes.bit_length())
        if self._since_alone >= _LOOK_AGAIN or (base is None and self._since_alone):
            self._since_alone = 0
            return 0
        self._since_alone += 1
        if base is None or self._cost is None:
            return self.allowed
        fitting = int((self._slowdown - 1.0) * base / self._cost)
        # At most twice as many as last time: the cost of one token is not the same for few and for many.
        self.allowed = max(min(_FLOOR, self._ceiling), min(fitting, 2 * self.allowed, self._ceiling))
        return self.allowed

    def observe(self, load: Load, seconds: float) -> None:
        """A step of this load took ``seconds``."""
        if not load.decodes or load.short:
            return
        size = load.decodes.bit_length()
        base = self._alone.get(size)
        if not load.long:
            if load.extra and base is not None:
                return  # it took longer than decodes alone
            self._alone[size] = seconds if base is None else _blend(base, seconds)
        elif base is not None:
            cost = max(seconds - base, 0.05 * base) / load.long  # the clock is not finer than that
            self._cost = cost if self._cost is None else _blend(self._cost, cost)


def _blend(old: float, new: float) -> float:
    new = min(max(new, old / _SURPRISE), old * _SURPRISE)
    return old + (new - old) * (_QUICKLY if new > old else _SLOWLY)
