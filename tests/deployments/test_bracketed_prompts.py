"""Questions that contain numbers and brackets without being tasks: the shipped forecaster takes them for open ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.tiers.quality_forecast import Forecaster, cheapest_within, features
from tests.deployments.shipped_forecaster import FORECASTER

PROMPTS = Path(__file__).with_name("bracketed_prompts.jsonl")
TOLERANCE = 0.05  # as deployments/dev.yaml has it


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.from_json(FORECASTER.read_text(encoding="utf-8"))


def prompts(*, opened: bool) -> list[str]:
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    return [row["prompt"] for row in rows if row["open"] is opened]


@pytest.mark.parametrize("prompt", prompts(opened=True))
def test_an_open_question_with_numbers_or_brackets_goes_to_general(forecaster: Forecaster, prompt: str) -> None:
    chances = forecaster.expect(features(prompt))

    assert forecaster.tiers[cheapest_within(chances, TOLERANCE)] == "general"


def test_sums_with_brackets_that_go_to_general_by_mistake_do_not_become_more(forecaster: Forecaster) -> None:
    """6 of 40; 17 with a forecaster that was fitted to none (docs/decisions/02-routing.md)."""
    chances = [forecaster.expect(features(prompt)) for prompt in prompts(opened=False)]

    assert sum(forecaster.tiers[cheapest_within(each, TOLERANCE)] == "general" for each in chances) <= 6
