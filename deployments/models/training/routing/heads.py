"""Fits the forecaster's heads: one logistic regression per tier, then calibrated.

One part of the tasks only reports. On the others the strength of the L2 penalty is chosen, and the heads calibrated, by
cross-validation: a task's forecast is always by heads that were fitted without it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from router.tiers.quality_forecast import Features, Forecaster, unknown_signs

Key = int | str  # a bucket of words, or a sign

PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # of squared weights, beside the mean log loss; strongest first
FOLDS = 4
REPORTED = 0.2  # part of the tasks
REFIT_PENALTY = 1e-5  # little: the chances that are fitted to have no noise
MIN_OCCURRENCES = 8  # tasks with a word or sign before it gets a weight; rarer ones are mostly names
MIN_TASKS = 100
MIN_KNOWN = 8  # of some 40,000 tasks


@dataclass(frozen=True, slots=True)
class HeadReport:
    """One head on the tasks of the third part. ``expected`` is its mean chance, ``right`` what came true; losses are
    in nats; ``base_loss`` is that of always forecasting ``right``, and ``auc`` the chance that a task answered right is
    given more than one answered wrong (0.5 tells nothing)."""

    tier: str
    penalty: float
    right: float
    expected: float
    log_loss: float
    base_loss: float
    brier: float
    auc: float


@dataclass(frozen=True, slots=True)
class Fit:
    """The forecaster, its report, and the places of the tasks that the report is of (in the order given)."""

    forecaster: Forecaster
    reports: tuple[HeadReport, ...]
    reported: tuple[int, ...]


def vocabulary_of(seen: Iterable[Features]) -> frozenset[int]:
    """Returns the words and pairs that occur in at least MIN_KNOWN tasks. Rarer ones count as unknown, so that the
    share of unknown words in a fitted task is like that in a new request."""
    counts = Counter(word for features in seen for word in features.vocabulary | features.pairs)
    return frozenset(word for word, count in counts.items() if count >= MIN_KNOWN)


def fit(
    seen: Sequence[Features],
    right: Sequence[Sequence[bool | None]],
    tiers: Sequence[str],
    seed: int = 0,
    known: frozenset[int] = frozenset(),
) -> Fit:
    """Heads for ``tiers`` from what was ``seen`` of each task and whether each tier was ``right`` (by task, by tier);
    None where a tier was not asked, which leaves the task out for its head. ``known`` are the words of the tasks that
    tiers were trained for.

    The same result for the same arguments. Raises ValueError for fewer than MIN_TASKS tasks.
    """
    if len(seen) < MIN_TASKS:
        raise ValueError(f"{len(seen)} different tasks are too few to fit to; at least {MIN_TASKS} are needed")
    seen = [replace(each, signs=(*each.signs, *unknown_signs(each, known))) for each in seen]
    order = list(range(len(seen)))
    random.Random(seed).shuffle(order)
    cut = round(REPORTED * len(order))
    reported, fitting = order[:cut], order[cut:]
    words: Counter[Key] = Counter(word for place in fitting for word in seen[place].words)
    signs: Counter[Key] = Counter(sign for place in fitting for sign in seen[place].signs)
    keys: list[Key] = [*sorted(words), *sorted(signs)]
    columns = {key: column for column, key in enumerate(k for k in keys if max(words[k], signs[k]) >= MIN_OCCURRENCES)}
    inputs = _matrix([seen[place] for place in fitting], columns)
    outcomes = _outcomes([right[place] for place in fitting])

    foretold = _cross_validated(inputs, outcomes)
    picked = _pick(foretold, outcomes)
    tier_numbers = torch.arange(len(tiers))
    slope, shift = _calibrate(foretold[picked, :, tier_numbers].T, outcomes)
    path = _path(inputs, outcomes)
    weights = torch.stack([heads.weights for heads in path])[picked, :, tier_numbers].T * slope
    bias = torch.stack([heads.bias for heads in path])[picked, tier_numbers] * slope + shift

    odds = torch.sparse.mm(_matrix([seen[place] for place in reported], columns), weights) + bias
    truth = _outcomes([right[place] for place in reported])
    reports = tuple(
        _report(tier, PENALTIES[best], odds[:, number], truth[:, number])
        for number, (tier, best) in enumerate(zip(tiers, picked, strict=True))
    )
    rows = [tuple(row) for row in weights.tolist()]
    forecaster = Forecaster(
        tuple(tiers),
        tuple(bias.tolist()),
        {key: rows[column] for key, column in columns.items() if isinstance(key, str)},
        {key: rows[column] for key, column in columns.items() if isinstance(key, int)},
        known=known,
    )
    return Fit(forecaster, reports, tuple(reported))


def refit(
    old: Forecaster, seen: Sequence[Features], chances: Sequence[Sequence[float]], penalty: float = REFIT_PENALTY
) -> Forecaster:
    """Returns a forecaster fitted to ``chances``, 0 to 1, by request and tier. ``seen`` are the requests. The fit
    starts from the weights of ``old``, whose tiers and known words it keeps. The same result for the same arguments."""
    seen = [replace(each, signs=(*each.signs, *unknown_signs(each, old.known))) for each in seen]
    counts: Counter[Key] = Counter()
    for each in seen:
        counts.update(each.words)
        counts.update(each.signs)
    before: dict[Key, tuple[float, ...]] = dict(old.words.items())
    before.update(old.signs)
    kept = sorted((key for key, count in counts.items() if count >= MIN_OCCURRENCES or key in before), key=str)
    columns = {key: column for column, key in enumerate(kept)}
    none = (0.0,) * len(old.tiers)
    start = _Heads(
        torch.tensor([before.get(key, none) for key in kept], dtype=torch.float64),
        torch.tensor(old.bias, dtype=torch.float64),
    )
    heads = _regress(_matrix(seen, columns), torch.tensor(chances, dtype=torch.float64), penalty, start)
    rows = [tuple(row) for row in heads.weights.tolist()]
    signs = {key: rows[column] for key, column in columns.items() if isinstance(key, str)}
    words = {key: rows[column] for key, column in columns.items() if isinstance(key, int)}
    return Forecaster(old.tiers, tuple(heads.bias.tolist()), signs, words, old.about, old.known)


@dataclass(frozen=True, slots=True)
class _Heads:
    weights: torch.Tensor  # column by tier
    bias: torch.Tensor

    def odds(self, inputs: torch.Tensor) -> torch.Tensor:
        """Log-odds by task and tier."""
        odds: torch.Tensor = torch.sparse.mm(inputs, self.weights) + self.bias
        return odds


def _matrix(seen: Sequence[Features], columns: Mapping[Key, int]) -> torch.Tensor:
    """Tasks by features: words (each 1 / sqrt of their number, as the forecaster has it) and signs."""
    rows: list[int] = []
    places: list[int] = []
    values: list[float] = []
    for row, features in enumerate(seen):
        share = 1 / math.sqrt(len(features.words) or 1)
        active: dict[Key, float] = {**dict.fromkeys(features.words, share), **dict.fromkeys(features.signs, 1.0)}
        for key in active.keys() & columns.keys():
            rows.append(row)
            places.append(columns[key])
            values.append(active[key])
    shape = (len(seen), len(columns))
    return torch.sparse_coo_tensor(
        torch.tensor([rows, places]), torch.tensor(values, dtype=torch.float64), shape, check_invariants=True
    ).coalesce()


def _outcomes(right: Sequence[Sequence[bool | None]]) -> torch.Tensor:
    """1 for right, 0 for wrong, NaN for not asked; by task and tier."""
    rows = [[math.nan if mark is None else float(mark) for mark in row] for row in right]
    return torch.tensor(rows, dtype=torch.float64)


def _losses(odds: torch.Tensor, outcomes: torch.Tensor) -> torch.Tensor:
    """Log losses in nats; NaN where there is no outcome. ``odds`` may have further dimensions in front."""
    known = ~outcomes.isnan()
    losses = functional.binary_cross_entropy_with_logits(
        odds, outcomes.nan_to_num(0.0).expand_as(odds), reduction="none"
    )
    return losses.where(known, math.nan)


def _cross_validated(inputs: torch.Tensor, outcomes: torch.Tensor) -> torch.Tensor:
    """Log-odds by penalty, task and tier, each task's from heads that were fitted without it."""
    everything = torch.arange(len(outcomes))
    foretold = torch.empty(len(PENALTIES), *outcomes.shape, dtype=torch.float64)
    for fold in range(FOLDS):
        left_out = everything[fold::FOLDS]
        others = everything[everything % FOLDS != fold]
        path = _path(inputs.index_select(0, others), outcomes[others])
        foretold[:, left_out] = torch.stack([heads.odds(inputs.index_select(0, left_out)) for heads in path])
    return foretold


def _path(inputs: torch.Tensor, outcomes: torch.Tensor) -> list[_Heads]:
    """Heads for each of PENALTIES, each starting from the one before, close to where it ends."""
    heads = _Heads(
        torch.zeros(inputs.shape[1], outcomes.shape[1], dtype=torch.float64),
        torch.zeros(outcomes.shape[1], dtype=torch.float64),
    )
    path = []
    for penalty in PENALTIES:
        heads = _regress(inputs, outcomes, penalty, heads)
        path.append(heads)
    return path


def _regress(inputs: torch.Tensor, outcomes: torch.Tensor, penalty: float, start: _Heads) -> _Heads:
    """Logistic regression of all heads at once; they share nothing but the call."""
    weights, bias = start.weights.clone().requires_grad_(), start.bias.clone().requires_grad_()

    def loss() -> torch.Tensor:
        odds = torch.sparse.mm(inputs, weights) + bias
        per_head = _losses(odds, outcomes).nanmean(0)
        # A little for the bias too: without it, that of a head that is always right would grow for ever.
        return per_head.sum() + penalty * (weights.square().sum() + 0.01 * bias.square().sum())

    _minimise(loss, [weights, bias])
    return _Heads(weights.detach(), bias.detach())


def _pick(odds: torch.Tensor, outcomes: torch.Tensor) -> list[int]:
    """For each tier the strongest penalty that is worse than the best by no more than one standard error, of their
    difference (cf. Breiman et al. 1984): requests will be worded in ways that the tasks are not, and smaller weights
    carry further."""
    every = _losses(odds, outcomes)
    picked: list[int] = []
    for tier in range(outcomes.shape[1]):
        losses = every[:, ~outcomes[:, tier].isnan(), tier]
        excess = losses - losses[losses.mean(1).argmin()]
        error = excess.std(1) / math.sqrt(excess.shape[1])
        picked.append(int((excess.mean(1) <= error).int().argmax()))
    return picked


def _calibrate(odds: torch.Tensor, outcomes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and shift of the log-odds of each head that make its chances come true (Platt 1999, with his targets, which
    keep a head that was always right from claiming certainty). A slope below zero would turn the head around: such a
    head has learnt nothing, and forecasts the mean."""
    count, good = (~outcomes.isnan()).sum(0), outcomes.nansum(0)
    targets = torch.where(outcomes > 0, (good + 1) / (good + 2), 1 / (count - good + 2)).where(
        ~outcomes.isnan(), math.nan
    )
    slope = torch.ones(odds.shape[1], dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(odds.shape[1], dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        mismatch = _losses(odds * slope + shift, targets).nanmean(0)
        return mismatch.sum() + 1e-6 * (slope.square().sum() + shift.square().sum())

    _minimise(loss, [slope, shift])
    learnt = slope.detach() > 0
    return slope.detach().where(learnt, 0.0), shift.detach().where(learnt, targets.nanmean(0).logit())


def _minimise(loss: Callable[[], torch.Tensor], variables: list[torch.Tensor]) -> None:
    optimizer = torch.optim.LBFGS(variables, max_iter=300, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of operations, each shorter than the hand-over to another thread
    try:
        optimizer.step(closure)
    finally:
        torch.set_num_threads(threads)


def _report(tier: str, penalty: float, odds: torch.Tensor, outcomes: torch.Tensor) -> HeadReport:
    asked = ~outcomes.isnan()
    odds, outcomes = odds[asked], outcomes[asked]
    chances = odds.sigmoid()
    share = outcomes.mean()
    base = -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share))
    return HeadReport(
        tier=tier,
        penalty=penalty,
        right=share.item(),
        expected=chances.mean().item(),
        log_loss=functional.binary_cross_entropy_with_logits(odds, outcomes).item(),
        base_loss=base.item(),
        brier=(chances - outcomes).square().mean().item(),
        auc=area_under_curve(chances.tolist(), [bool(outcome) for outcome in outcomes.tolist()]),
    )


def area_under_curve(chances: Sequence[float], outcomes: Sequence[bool]) -> float:
    """The area under the ROC curve by ranks (Mann and Whitney 1947), ties counting half; NaN if all outcomes agree."""
    good = [chance for chance, outcome in zip(chances, outcomes, strict=True) if outcome]
    bad = [chance for chance, outcome in zip(chances, outcomes, strict=True) if not outcome]
    if not good or not bad:
        return math.nan
    wins = torch.tensor(good).unsqueeze(1) - torch.tensor(bad)
    return ((wins > 0).double().mean() + (wins == 0).double().mean() / 2).item()
