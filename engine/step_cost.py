"""``StepCostFit``: learns what a step costs from its prompt tokens and its decodes. The router predicts TTFTs by it.

A step takes ``step_s + prompt_token_s * prompt tokens + sequence_s * decodes`` seconds. The three are the non-negative
least squares fit to recent steps. A mean of tokens per second would do for prompts of one length alone: a step of few
tokens mostly waits for the weights, so its tokens look expensive.

Reads no clock: the caller passes the seconds in.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from engine.scheduler.step_plan import Load

HALF_LIFE_S = 30.0
"""The seconds after which a step counts half. Long enough for steps of different sizes to be among those that count."""

MIN_STEPS = 0.5
"""Old steps never count less than this many together: the last fit stays known however long the engine idles."""

SURPRISE = 3.0
"""Largest factor by which a step may be slower than the fit says, as far as it counts: one may wait for a compiler."""

SURPRISE_STEPS = 8
"""Steps before that applies."""

LEAST_S = 1e-6
"""Steps that take less by the clock are not measured."""

_FEATURES = 3
_RIDGE = 1e-9  # of the diagonal; below it, two features cannot be distinguished


class StepCost(NamedTuple):
    """The parts of a step's time in seconds. All 0 until measured."""

    step_s: float = 0.0  # of any step
    prompt_token_s: float = 0.0  # of each prompt token in addition
    sequence_s: float = 0.0  # of each decoding sequence in addition


class StepCostFit:
    """The fit for one engine, of which ``cost`` is the latest result."""

    def __init__(self) -> None:
        self.cost = StepCost()
        self._products = [[0.0] * _FEATURES for _ in range(_FEATURES)]  # weighted sums of products of features
        self._times = [0.0] * _FEATURES  # weighted sums of products of features and seconds
        self._steps = 0.0
        self._then: float | None = None  # instant of the last step

    def observe(self, load: Load, seconds: float, now: float) -> None:
        """Records that a step with this ``load`` took ``seconds`` and ended at ``now``, by the engine's clock."""
        prompt, decodes = float(load.long + load.short), float(load.decodes)
        if seconds < LEAST_S or not (prompt or decodes):
            return
        self._decay(now)
        cost = self.cost
        expected_s = seconds
        if cost.step_s > 0:  # without a fixed part, a fit knows nothing of decodes alone, for example
            expected_s = cost.step_s + cost.prompt_token_s * prompt + cost.sequence_s * decodes
            if self._steps >= SURPRISE_STEPS:
                seconds = min(seconds, SURPRISE * expected_s)
        # Errors of short steps count more, since it is the relative error that matters. By the expected time: with the
        # measured one, steps that happened to be fast would count more than those that were slow.
        weight = 1.0 / max(expected_s, LEAST_S)
        ones, prompts, sequences = self._products
        weighted_prompt, weighted_decodes = weight * prompt, weight * decodes
        ones[0] += weight
        ones[1] += weighted_prompt
        ones[2] += weighted_decodes
        prompts[1] += weighted_prompt * prompt
        prompts[2] += weighted_prompt * decodes
        sequences[2] += weighted_decodes * decodes
        prompts[0], sequences[0], sequences[1] = ones[1], ones[2], prompts[2]
        self._times[0] += weight * seconds
        self._times[1] += weighted_prompt * seconds
        self._times[2] += weighted_decodes * seconds
        self._steps += 1

    def solve(self) -> StepCost:
        """Returns the fit to the steps up to now, and keeps it as ``cost``. Takes some 50 µs, so it is not for every
        step."""
        if not self._steps:
            return self.cost
        best, least = self.cost, 0.0
        for size in range(1, _FEATURES + 1):
            for chosen in combinations(range(_FEATURES), size):
                found = _solved(self._products, self._times, chosen)
                if found is None or min(found) < 0:
                    continue
                # The squared error, less the sum of squared seconds, which is the same for all.
                error = -sum(value * self._times[at] for at, value in zip(chosen, found, strict=True))
                if error < least:
                    least, values = error, dict(zip(chosen, found, strict=True))
                    best = StepCost(*(values.get(at, 0.0) for at in range(_FEATURES)))
        self.cost = best
        return best

    def discount(self) -> None:
        """Lets the steps up to now count as little as after a long idle time, so that the next ones decide."""
        self.solve()
        if self._steps > MIN_STEPS:
            self._scale(MIN_STEPS / self._steps)

    def _decay(self, now: float) -> None:
        then, self._then = self._then, now
        if then is None or now <= then or not self._steps:
            return
        self._scale(max(0.5 ** ((now - then) / HALF_LIFE_S), min(1.0, MIN_STEPS / self._steps)))

    def _scale(self, factor: float) -> None:
        self._steps *= factor
        self._times = [factor * each for each in self._times]
        self._products = [[factor * each for each in row] for row in self._products]


def _solved(products: list[list[float]], times: list[float], chosen: tuple[int, ...]) -> list[float] | None:
    """Returns the least squares solution with the ``chosen`` features alone, by Gauss's elimination. None if two of
    them cannot be distinguished."""
    rows = [[*(products[one][other] for other in chosen), times[one]] for one in chosen]
    size = len(chosen)
    for at in range(size):
        if rows[at][at] <= _RIDGE * products[chosen[at]][chosen[at]] or rows[at][at] <= 0:
            return None
        for below in range(at + 1, size):
            factor = rows[below][at] / rows[at][at]
            rows[below] = [mine - factor * above for mine, above in zip(rows[below], rows[at], strict=True)]
    found = [0.0] * size
    for at in reversed(range(size)):
        found[at] = (rows[at][-1] - sum(rows[at][k] * found[k] for k in range(at + 1, size))) / rows[at][at]
    return found
