"""``StepCostFit``: learns what a step costs from its prompt tokens and its decodes. The router predicts TTFTs by it.

A step takes ``step_s + prompt_token_s * max(0, prompt tokens - free_prompt_tokens) + sequence_s * decodes`` seconds.
The three times are the non-negative least squares fit to recent steps. A mean of tokens per second would do for prompts
of one length alone: a step of few tokens mostly waits for the weights, so its tokens look expensive. The first tokens
cost nothing where they are computed while the weights are read, which takes longer (roofline model). How many those are
is fitted too, if steps say it clearly.

Reads no clock: the caller passes the seconds in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

CLEARLY = 16.0
"""By how many mean squared errors of a step the sum of all must fall for tokens to be free. Chance alone makes it fall
by eleven in one of a thousand fits. Free tokens that are known stay while the fit with them is the better one: old
steps count little after an idle time, and would no longer be a proof."""

_FEATURES = 3
_SUBSETS = tuple(chosen for size in range(_FEATURES, 0, -1) for chosen in combinations(range(_FEATURES), size))
_WITH_PROMPT = ((0, 1, 2), (0, 1))  # of the features, those that can tell how many tokens are free
_RIDGE = 1e-9  # of the diagonal; below it, two features cannot be distinguished
_ROUNDING = 1e-9  # of the squared seconds
_MOST_WEIGHT = 1e9  # of a new step; the sums are scaled down then

_Sums = list[float]
"""Weighted sums over steps, for steps ``1``, prompt tokens ``p``, decodes ``d`` and seconds ``t``: of 1, p, d, pp, pd,
dd, t, tp and td."""


class StepCost(NamedTuple):
    """The parts of a step's time, in seconds, and how many prompt tokens add nothing. All 0 until measured."""

    step_s: float = 0.0  # of any step
    prompt_token_s: float = 0.0  # of each prompt token in addition, after the free ones
    sequence_s: float = 0.0  # of each decoding sequence in addition
    free_prompt_tokens: int = 0

    def seconds(self, prompt: float, decodes: float) -> float:
        """Returns what a step of ``prompt`` tokens and ``decodes`` takes."""
        paid = max(0.0, prompt - self.free_prompt_tokens)
        return self.step_s + self.prompt_token_s * paid + self.sequence_s * decodes


class StepCostFit:
    """The fit for one engine, of which ``cost`` is the latest result."""

    def __init__(self) -> None:
        self.cost = StepCost()
        self._groups: dict[int, _Sums] = {}  # by the least prompt tokens that steps of the group may have
        self._squares = 0.0  # weighted sum of squared seconds
        self._unit = 1.0  # what a new step counts in the sums, which rises where the old ones would be scaled down
        self._steps = 0.0
        self._then: float | None = None  # instant of the last step

    def observe(self, load: Load, seconds: float, now: float) -> None:
        """Records that a step with this ``load`` took ``seconds`` and ended at ``now``, by the engine's clock."""
        tokens = load.long + load.short
        prompt, decodes = float(tokens), float(load.decodes)
        if seconds < LEAST_S or not (prompt or decodes):
            return
        self._decay(now)
        expected_s = seconds
        if self.cost.step_s > 0:  # without a fixed part, a fit knows nothing of decodes alone, for example
            expected_s = self.cost.seconds(prompt, decodes)
            if self._steps >= SURPRISE_STEPS:
                seconds = min(seconds, SURPRISE * expected_s)
        # Errors of short steps count more, since it is the relative error that matters. By the expected time: with the
        # measured one, steps that happened to be fast would count more than those that were slow.
        weight = self._unit / max(expected_s, LEAST_S)
        sums = self._groups.setdefault(_group(tokens), [0.0] * 9)
        weighted_prompt, weighted_decodes = weight * prompt, weight * decodes
        sums[0] += weight
        sums[1] += weighted_prompt
        sums[2] += weighted_decodes
        sums[3] += weighted_prompt * prompt
        sums[4] += weighted_prompt * decodes
        sums[5] += weighted_decodes * decodes
        sums[6] += weight * seconds
        sums[7] += weighted_prompt * seconds
        sums[8] += weighted_decodes * seconds
        self._squares += weight * seconds * seconds
        self._steps += 1

    def solve(self) -> StepCost:
        """Returns the fit to the steps up to now, and keeps it as ``cost``. Takes up to half a millisecond, so it is
        not for every step."""
        if self._steps:
            self.cost = self._with_free_tokens(*self._linear())
        return self.cost

    def discount(self) -> None:
        """Lets the steps up to now count as little as after a long idle time, so that the next ones decide."""
        self.solve()
        if self._steps > MIN_STEPS:
            self._scale(MIN_STEPS / self._steps)

    def _linear(self) -> tuple[StepCost, float]:
        """Returns the fit without free tokens, and its squared error."""
        everything = _added(self._groups.values())
        found = _least(*_equations(everything, everything, 0), _SUBSETS)
        return (self.cost, self._squares) if found is None else (StepCost(*found[0]), self._squares + found[1])

    def _with_free_tokens(self, linear: StepCost, error: float) -> StepCost:
        """Returns the fit with free tokens whose error is the least, if that is clearly less than ``error``, the one of
        the fit ``linear``, or less at all if the last fit had free ones. All that is free together takes no longer than
        the step itself."""
        best, least = linear, error
        for free, products, times in self._candidates():
            found = _least(products, times, _WITH_PROMPT)
            if found is not None and self._squares + found[1] < least and free * found[0][1] <= found[0][0]:
                best, least = StepCost(*found[0], free), self._squares + found[1]
        rounding = _ROUNDING * self._squares
        enough = rounding if self.cost.free_prompt_tokens else CLEARLY * max(least, rounding) / max(self._steps, 1.0)
        return best if error - least > enough else linear

    def _candidates(self) -> Iterator[tuple[int, list[list[float]], list[float]]]:
        """Yields numbers of free tokens, each with the equations of its fit. The steps of a group have all of them, or
        none has more."""
        everything, above = _added(self._groups.values()), [0.0] * 9
        for free in sorted(self._groups, reverse=True):
            above = [one + other for one, other in zip(above, self._groups[free], strict=True)]
            if free:
                yield free, *_equations(everything, above, free)

    def _decay(self, now: float) -> None:
        then, self._then = self._then, now
        if then is None or now <= then or not self._steps:
            return
        self._scale(max(0.5 ** ((now - then) / HALF_LIFE_S), min(1.0, MIN_STEPS / self._steps)))

    def _scale(self, factor: float) -> None:
        """Lets the steps up to now count ``factor`` times as much."""
        self._steps *= factor
        self._unit /= factor
        if self._unit > _MOST_WEIGHT:
            self._groups = {least: [each / self._unit for each in sums] for least, sums in self._groups.items()}
            self._squares /= self._unit
            self._unit = 1.0


def _group(tokens: int) -> int:
    """Returns the least of the numbers that are in a group with ``tokens``, none of which is a quarter more."""
    bits = max(0, tokens.bit_length() - 3)
    return tokens >> bits << bits


def _added(several: Iterable[_Sums]) -> _Sums:
    """Returns the sums of all steps together."""
    return [sum(each) for each in zip(*several, strict=True)]


def _equations(everything: _Sums, above: _Sums, free: int) -> tuple[list[list[float]], list[float]]:
    """Returns the weighted sums of products of features, and of products of features and seconds. ``everything`` are
    the sums of all steps, ``above`` those of steps that have more than ``free`` prompt tokens, or as many."""
    ones, _, decodes, _, _, decode_squares, times, _, decode_times = everything
    some, prompts, beside, squares, mixed, _, while_s, prompt_times, _ = above
    paid = prompts - free * some
    paid_squares = squares - 2 * free * prompts + free * free * some
    paid_mixed = mixed - free * beside
    products = [[ones, paid, decodes], [paid, paid_squares, paid_mixed], [decodes, paid_mixed, decode_squares]]
    return products, [times, prompt_times - free * while_s, decode_times]


def _least(
    products: list[list[float]], times: list[float], subsets: Sequence[tuple[int, ...]]
) -> tuple[tuple[float, float, float], float] | None:
    """Returns the non-negative values of the features with the least squared error that have one of ``subsets`` alone,
    and this error less the sum of squared seconds, which is the same for all; None: there are none. ``subsets`` has the
    largest first."""
    best: tuple[tuple[float, float, float], float] | None = None
    for chosen in subsets:
        found = _solved(products, times, chosen)
        if found is None or min(found) < 0:
            continue
        error = 0.0
        for at, value in zip(chosen, found, strict=True):
            error -= value * times[at]
        if error < (0.0 if best is None else best[1]):
            values = dict(zip(chosen, found, strict=True))
            best = (values.get(0, 0.0), values.get(1, 0.0), values.get(2, 0.0)), error
            if len(chosen) == _FEATURES:
                break  # none of a part of the features is nearer
    return best


def _solved(products: list[list[float]], times: list[float], chosen: tuple[int, ...]) -> list[float] | None:
    """Returns the least squares solution with the ``chosen`` features alone, by Gauss's elimination. None if two of
    them cannot be distinguished."""
    rows = [[*(products[one][other] for other in chosen), times[one]] for one in chosen]
    size = len(chosen)
    for at in range(size):
        if rows[at][at] <= _RIDGE * products[chosen[at]][chosen[at]] or rows[at][at] <= 0:
            return None
        upper = rows[at]
        for below in range(at + 1, size):
            row, factor = rows[below], rows[below][at] / upper[at]
            for column in range(at + 1, size + 1):
                row[column] -= factor * upper[column]
    found = [0.0] * size
    for at in reversed(range(size)):
        rest = rows[at][size]
        for known in range(at + 1, size):
            rest -= rows[at][known] * found[known]
        found[at] = rest / rows[at][at]
    return found
