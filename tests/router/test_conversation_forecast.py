"""Which part of a conversation the forecaster reads."""

from __future__ import annotations

import pytest

from engine.api import Conversation, Message
from router.config.auto import AutoConfig
from router.tiers.choose_tier import TierChoice, choose_tier
from router.tiers.conversation_forecast import CLEAR_CHARS, CLEAR_WORDS, conversation_chances
from router.tiers.quality_forecast import Forecaster, Text, features

TIERS = ("fast", "general")
OPEN = "why do all cats like their boxes"
TASK = "what is 1 + 2 + 3 now"


def planted(general: float = 4.0) -> Forecaster:
    """One turn without digits is for ``general``; digits, and further turns, are for ``fast``."""
    signs = {"numbers=0": (-4.0, general), "numbers=3": (4.0, -4.0)}
    signs |= {f"turns={turns}": (8.0, -8.0) for turns in range(2, 9)}
    return Forecaster(TIERS, (0.0, 0.0), signs, {})


def conversation(*turns: str, system: str = "") -> Conversation:
    roles = ("user", "assistant")
    said = [Message(roles[place % 2], turn) for place, turn in enumerate(turns)]
    return Conversation((*([Message("system", system)] if system else []), *said))


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        (conversation("hi", "Hello!", OPEN), OPEN),
        (conversation(TASK, "6", OPEN), OPEN),
        (conversation(OPEN, "Warmth.", "And why?"), OPEN),
        (conversation(OPEN, "Warmth.", "And why?", "It is so.", "Thanks!", system="Be brief."), OPEN),
        (conversation(OPEN, "Warmth.", TASK), None),  # the last question that speaks for itself decides
        (conversation(TASK, "6", "And why?"), None),
        (conversation("hi", "Hello!", "And why?"), None),
        (conversation(OPEN), None),
        (conversation(OPEN, system="Be brief."), None),
        (conversation(), None),
        (OPEN, None),
    ],
)
def test_a_clear_question_is_read_alone_where_it_is_surely_open(prompt: Conversation | str, read: str | None) -> None:
    forecaster = planted()
    assert conversation_chances(forecaster, prompt) == forecaster.expect(features(prompt if read is None else read))


@pytest.mark.parametrize("general", [0.5, 2.9])
def test_a_question_that_may_be_a_task_is_read_with_what_came_before(general: float) -> None:
    forecaster, prompt = planted(general), conversation("hi", "Hello!", OPEN)
    assert conversation_chances(forecaster, prompt) == forecaster.expect(features(prompt))


def test_a_question_that_a_cheaper_tier_may_answer_is_read_with_what_came_before() -> None:
    forecaster = Forecaster(TIERS, (0.1, 9.0), {"turns=2": (-9.0, 0.0)}, {})
    prompt = conversation("hi", "Hello!", OPEN)
    assert conversation_chances(forecaster, prompt) == forecaster.expect(features(prompt))


@pytest.mark.parametrize(
    ("question", "clear"),
    [
        (" ".join(["so"] * CLEAR_WORDS), True),
        (" ".join(["so"] * (CLEAR_WORDS - 1)), False),
        ("x" * CLEAR_CHARS, True),
        ("x" * (CLEAR_CHARS - 1), False),
        ("", False),
        ("为什么呢", False),
        ("天空为什么蓝", True),
        ("?! - ?! - ?!", False),
    ],
)
def test_a_question_speaks_for_itself_by_its_words_or_its_characters(question: str, clear: bool) -> None:
    forecaster, prompt = planted(), conversation("hi", "Hello!", question)
    read: Text = question if clear else prompt
    assert conversation_chances(forecaster, prompt) == forecaster.expect(features(read))


@pytest.mark.parametrize(
    ("last", "general", "read"),
    [
        ("And 7?", 0.0, OPEN),  # a short question goes on, unless it is surely a task
        ("And 7?", -3.8, OPEN),
        ("And 7?", -4.0, None),
        ("And what would you say of 7?", -0.3, OPEN),  # a clear one only if it is about as likely open as a task
        ("And what would you say of 7?", -0.5, None),
    ],
)
def test_what_may_lean_on_an_open_question_goes_where_that_went(last: str, general: float, read: str | None) -> None:
    signs = {"numbers=0": (-4.0, 4.0), "numbers=1": (4.0, general)}
    forecaster = Forecaster(TIERS, (0.0, 0.0), signs, {})
    prompt = conversation(OPEN, "Warmth.", last)
    assert conversation_chances(forecaster, prompt) == forecaster.expect(features(prompt if read is None else read))


@pytest.mark.parametrize(("allowed", "chosen"), [(("fast", "frontier"), "frontier"), (None, "general")])
def test_a_key_without_the_tier_for_open_questions_gets_the_best_of_its_own(
    allowed: tuple[str, ...] | None, chosen: str
) -> None:
    tiers = ("fast", "frontier", "general")
    signs = {"numbers=0": (-4.0, -4.0, 4.0), "turns=2": (3.0, 8.0, -8.0)}
    choice = TierChoice(tiers, AutoConfig(tolerance=0.05), Forecaster(tiers, (0.0, 0.0, 0.0), signs, {}))
    assert choose_tier("auto", [conversation(OPEN, "Warmth.", "And why?")], None, choice, allowed).tier == chosen


def test_only_the_ends_of_a_long_question_are_read() -> None:
    forecaster, question = planted(), "word " * 50_000
    prompt = conversation("hi", "Hello!", question)
    assert conversation_chances(forecaster, prompt, 100) == forecaster.expect(features(question, 100))
