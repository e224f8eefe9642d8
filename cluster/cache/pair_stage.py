"""``PairStage``: the second stage of the semantic cache: pair scorer, pair guard and calibration table."""

from __future__ import annotations

from typing import NamedTuple

from cluster.cache.config import SemanticCacheConfig
from cluster.cache.lazy_scorer import LazyScorer
from cluster.cache.ports import PairGuard
from cluster.pair_scorer.pair_model_files import read_artefact
from router.cache.calibration_table import CalibrationTable
from router.cache.pair_guard.pair_rules import refusal
from router.ports.pair_scorer import PairScorer

CALIBRATION = "calibration.json"


class PairStage(NamedTuple):
    """The second stage. ``table`` is the calibration table for one version of ``scorer``; it covers pairs that
    ``guard`` does not refuse."""

    scorer: PairScorer
    guard: PairGuard
    table: CalibrationTable


def read_pair_stage(config: SemanticCacheConfig) -> PairStage:
    """Returns the pair stage of ``config.pair_model``. The model's weights are loaded when the first pair is scored.

    Raises OSError for a missing file, and ValueError for files that do not fit together.
    """
    version = read_artefact(config.pair_model).version
    table = CalibrationTable.read(config.pair_model / CALIBRATION)
    if table.version != version:
        raise ValueError(f"{CALIBRATION} is for {table.version}, but the model is {version}")
    return PairStage(LazyScorer(lambda: _load(config), version), refusal, table)


def _load(config: SemanticCacheConfig) -> PairScorer:
    # Imported when a pair is scored: the runtime takes memory that a service without repeated questions need not pay.
    from cluster.pair_scorer.pair_scorer import LocalPairScorer

    return LocalPairScorer(config.pair_model)
