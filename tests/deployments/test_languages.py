"""``auto`` with the shipped forecaster: an open question is open in any language, with spaces between words or none."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from engine.api import Conversation, Message
from router.config.auto import AutoConfig
from router.tiers.choose_tier import TierChoice, choose_tier
from router.tiers.quality_forecast import Forecaster

FORECASTER = Path(__file__).parents[2] / "deployments" / "models" / "auto.json"
QUESTIONS: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("questions_by_language.json").read_text(encoding="utf-8")
)
"""Written for this test; nothing was fitted to them."""
EVERY = [(language, question) for language, questions in QUESTIONS.items() for question in questions]


@cache
def shipped() -> TierChoice:
    forecaster = Forecaster.from_json(FORECASTER.read_text(encoding="utf-8"))
    return TierChoice(forecaster.tiers, AutoConfig(tolerance=0.05), forecaster)


def tier_of(*turns: str) -> str:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[place % 2], turn) for place, turn in enumerate(turns))
    return choose_tier("auto", [Conversation(messages)], None, shipped()).tier


@pytest.mark.parametrize(("language", "question"), EVERY)
def test_an_open_question_goes_to_general_in_any_language(language: str, question: str) -> None:
    assert tier_of(question) == "general"


@pytest.mark.parametrize("before", [("hi", "Hello! How can I help you?"), ("What is 12 + 9?", "21")])
def test_most_do_behind_another_request_too(before: tuple[str, str]) -> None:
    astray = [question for _, question in EVERY if tier_of(*before, question) != "general"]
    assert len(astray) <= 0.2 * len(EVERY)
