"""The token budget of chunked prefill: how many tokens of long prompts a step may compute beside decodes whose users
wait for each token.

The cost of a prompt token depends on context length, model and machine, so it is learnt from the steps: from the time
of steps that only decode, and from the additional time of steps with long prompts. The next step gets as many tokens as
keep its time within ``slowdown`` times that of its decodes alone. (Sarathi-Serve, Agrawal et al., OSDI 2024, fixes the
number of tokens and lets the time vary; here the time is fixed.)

Reads no clock: the caller passes the seconds in.
"""

from __future__ import annotations

from engine.scheduler.step_plan import Load

_FLOOR = 4
"""Least number of tokens in a chunk, so that a prompt makes progress even where every token is slow."""

_FIRST = 32
"""Tokens of the first chunk beside decodes, while the cost of a token is unknown."""

_LOOK_AGAIN = 64
"""Number of steps with long prompts after which one step has none, to measure the decodes alone again."""

_QUICKLY, _SLOWLY = 0.5, 0.1
"""Weights of a new measurement that is higher, and of one that is lower, than the average. A cost that has risen is
followed faster."""

_SURPRISE = 2.0
"""Largest factor by which one measurement counts as changed, because a single step may be slow for other reasons."""


class PrefillBudget:
    """Learns from every step of one engine how many tokens of long prompts the next one may compute, ``ceiling`` at
    most. ``slowdown`` is the limit on the time of a step, as a multiple of the time of its decodes alone."""

    def __init__(self, slowdown: float, ceiling: int) -> None:
        self._slowdown = slowdown
        self._ceiling = ceiling
        self._alone: dict[int, float] = {}  # seconds of decode-only steps, by bit length of their number
        self._cost: float | None = None  # seconds of one token of a long prompt
        self._since_alone = 0  # steps with long prompts since the last one without
        self.allowed = min(_FIRST, ceiling)  # tokens that the last step with a long prompt was allowed

    def tokens(self, decodes: int) -> int:
        """Returns how many tokens of long prompts the next step may compute beside ``decodes`` decodes. 0 makes it a
        step that measures the decodes alone."""
        base = self._alone.get(decodes.bit_length())
        if self._since_alone >= _LOOK_AGAIN or (base is None and self._since_alone):
            self._since_alone = 0
            return 0
        self._since_alone += 1
        if base is None or self._cost is None:
            return self.allowed
        fitting = int((self._slowdown - 1.0) * base / self._cost)
        # At most twice as many as last time, because the cost per token depends on the number of tokens.
        self.allowed = max(min(_FLOOR, self._ceiling), min(fitting, 2 * self.allowed, self._ceiling))
        return self.allowed

    def observe(self, load: Load, seconds: float) -> None:
        """Records that a step with this ``load`` took ``seconds``. Steps without decodes or with short prompts are
        ignored, and those that took no time by the clock."""
        if not load.decodes or load.short or seconds <= 0:
            return
        size = load.decodes.bit_length()
        base = self._alone.get(size)
        if not load.long:
            if load.extra and base is not None:
                return  # draft or forced tokens made it longer than plain decodes
            self._alone[size] = seconds if base is None else _blend(base, seconds)
        elif base is not None:
            cost = max(seconds - base, 0.05 * base) / load.long  # the least cost: measurements are not more precise
            self._cost = cost if self._cost is None else _blend(self._cost, cost)


def _blend(old: float, new: float) -> float:
    """Returns the moving average ``old`` after the measurement ``new``."""
    new = min(max(new, old / _SURPRISE), old * _SURPRISE)
    return old + (new - old) * (_QUICKLY if new > old else _SLOWLY)
