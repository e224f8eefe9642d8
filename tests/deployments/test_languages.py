"""``auto`` with the shipped forecaster: an open question is open in any language, with spaces between words or none."""

from __future__ import annotations

import pytest

from tests.deployments.questions import EVERY
from tests.deployments.shipped_forecaster import tier_of


@pytest.mark.parametrize(("language", "question"), EVERY)
def test_an_open_question_goes_to_general_in_any_language(language: str, question: str) -> None:
    assert tier_of(question) == "general"


@pytest.mark.parametrize("before", [("hi", "Hello! How can I help you?"), ("What is 12 + 9?", "21")])
def test_most_do_behind_another_request_too(before: tuple[str, str]) -> None:
    astray = [question for _, question in EVERY if tier_of(*before, question) != "general"]
    assert len(astray) <= 0.2 * len(EVERY)
