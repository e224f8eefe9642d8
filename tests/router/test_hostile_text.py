"""Text made to be slow costs no more than any other: the complexity score runs on the event loop of everybody."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Conversation, Message
from router.tiers.complexity import SCANNED_CHARS, complexity

UNITS = ["1", "\n", " ", "{\n", "{ ", "1 ", "1+", "- ", "architect", "a\n ", "\n" + " " * 50, "`", "\\", "9\t"]
LIMIT_S = 0.5  # plain text takes 5 ms; what is squared takes seconds

turns = st.lists(st.text(max_size=60), min_size=1, max_size=4)


def conversation(texts: list[str]) -> Conversation:
    return Conversation(tuple(Message("user", text) for text in texts))


@pytest.mark.parametrize("unit", UNITS, ids=ascii)
@pytest.mark.parametrize("head", ["", "{", "1"])
def test_no_repetition_is_slow(unit: str, head: str) -> None:
    text = head + unit * (SCANNED_CHARS // len(unit))
    started = time.process_time()
    complexity(text, None)
    assert time.process_time() - started < LIMIT_S


@given(turns, st.text(max_size=60), st.none() | st.integers(1, 5000))
def test_one_more_turn_never_looks_simpler(texts: list[str], more: str, max_tokens: int | None) -> None:
    before = complexity(conversation(texts), max_tokens)
    assert complexity(conversation([*texts, more]), max_tokens).score >= before.score - 1e-9


@given(st.text(max_size=100), st.integers(1, 5000), st.integers(0, 5000))
def test_a_longer_answer_never_looks_simpler(text: str, tokens: int, more: int) -> None:
    assert complexity(text, tokens + more).score >= complexity(text, tokens).score


@given(turns)
def test_the_signals_add_up_to_the_score(texts: list[str]) -> None:
    judged = complexity(conversation(texts), None)
    assert abs(judged.score - min(1.0, sum(value for _, value in judged.signals))) < 0.05
