"""An example for each reason code, and the words in which it is explained."""

from __future__ import annotations

import pytest

from cluster.autoscaling.decision import Reason
from cluster.autoscaling.explain import explain
from tests.autoscaling.reason_cases import (
    CASES,
)

OBJECTIVES = {Reason.PREDICTED_TTFT, Reason.PREDICTED_ITL}
"""Reasons against fewer replicas alone, which tests/autoscaling/test_scale_down_check.py has."""


@pytest.mark.parametrize("reason", [each for each in Reason if each not in OBJECTIVES], ids=str)
def test_each_reason_has_a_case_and_words(reason: Reason) -> None:
    decision = CASES[reason]()

    given = (decision.reason, decision.why_not_more.reason, decision.why_not_fewer.reason)
    assert reason in given, (given, explain(decision))
    words = explain(decision)
    assert words.startswith(f"{decision.tier}: {decision.target} replica")
    assert "Why not more: " in words
    assert "Why not fewer: " in words
