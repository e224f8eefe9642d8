"""The pair model that ships: its files fit together, opposites are no hits, the order of a pair makes no difference."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.pair_scorer.pair_model import PairModel
from cluster.pair_scorer.pair_scorer import MODEL
from router.cache.calibration_table import CalibrationTable
from router.cache.hit_threshold import threshold_for
from router.cache.pair_guard.pair_rules import refusal

MAX_BYTES = 25_000_000
HIGH = 0.95
"""A cosine as opposites have it."""

OPPOSITES = [
    ("How do I subscribe to the newsletter?", "How do I unsubscribe from the newsletter?"),
    ("Is it legal to own a fox in Texas?", "Is it not legal to own a fox in Texas?"),
    ("Book a table for two on Friday", "Book a table for four on Friday"),
    ("Sort an array in Rust", "Sort an array in Ruby"),
    ("Does Anna report to Tom?", "Does Tom report to Anna?"),
    ("Is 🍎 healthy?", "Is 🍔 healthy?"),
    ("What is the derivative of x²?", "What is the derivative of x³?"),
    ("What does 鱉 mean in English?", "What does 鯨 mean in English?"),
    ("Crack the hash " + "ab" * 64, "Crack the hash " + "cd" * 64),
]


@pytest.fixture(scope="module")
def model() -> PairModel:
    return PairModel(MODEL)


def test_its_files_are_small_and_of_one_version(model: PairModel) -> None:
    table = CalibrationTable.read(MODEL / "calibration.json")
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= MAX_BYTES
    assert table.version == model.artefact.version
    assert table.different + table.same >= 10_000


def test_a_lower_bound_has_a_higher_threshold_and_each_lies_among_scores() -> None:
    table = CalibrationTable.read(MODEL / "calibration.json")
    thresholds = [threshold_for(table, bound) for bound in (0.003, 0.01, 0.03, 0.1)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert 0 < thresholds[-1] < thresholds[0] < 1


def test_opposites_are_no_hits(model: PairModel) -> None:
    threshold = threshold_for(CalibrationTable.read(MODEL / "calibration.json"), 0.01)
    for one, other in OPPOSITES:
        score = model.probabilities(one, [other], [HIGH])[0]
        assert refusal(one, other) is not None or score < threshold


def test_a_paraphrase_scores_above_another_question(model: PairModel) -> None:
    asked = "How can I lose weight quickly?"
    paraphrase, other = model.probabilities(
        asked, ["What is the fastest way to lose weight?", "How can I gain weight quickly?"], [0.9, 0.9]
    )
    assert paraphrase > other


def test_the_order_of_a_pair_makes_no_difference(model: PairModel) -> None:
    for one, other in OPPOSITES:
        np.testing.assert_allclose(model.logits([(one, other)]), model.logits([(other, one)]), atol=1e-4)
