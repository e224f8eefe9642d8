"""The embedded tiers are what they are for: each a real step up from the one below, as their cards tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployments.models.training.shapes import TIERS

MODELS = Path(__file__).resolve().parents[2] / "deployments" / "models"
ROW = re.compile(r"^\| (?:\*\*)?([\w ]+?)(?:\*\*)? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)


def card(tier: str) -> str:
    return (MODELS / tier / "README.md").read_text(encoding="utf-8")


def scores(tier: str) -> dict[str, list[float]]:
    """Percent right of each family by level, then over all levels."""
    return {name: [float(each) for each in rest] for name, *rest in ROW.findall(card(tier))}


def test_each_tier_is_ten_points_ahead_of_the_one_below() -> None:
    overall = [scores(tier)["all"][-1] for tier in TIERS]

    assert overall[-1] >= 85
    assert overall[1] - overall[0] >= 10
    assert overall[2] - overall[1] >= 10


@pytest.mark.parametrize("family", ["extraction", "classification"])
def test_the_smallest_knows_the_easiest_tasks(family: str) -> None:
    assert scores("fast")[family][0] >= 90


def test_english_costs_fewer_bits_from_tier_to_tier() -> None:
    bits = [float(each) for tier in TIERS for each in re.findall(r"held-out English \| ([\d.]+) \|", card(tier))]

    assert len(bits) == len(TIERS)
    assert bits[0] > bits[1] > bits[2]


def test_all_tiers_have_one_tokenizer_and_fit_into_the_repository() -> None:
    assert len({(MODELS / tier / "tokenizer.json").read_bytes() for tier in TIERS}) == 1
    assert sum(path.stat().st_size for tier in TIERS for path in (MODELS / tier).iterdir()) <= 40e6
