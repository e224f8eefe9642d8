"""Wrong hits that users of other semantic caches have reported: the guard refuses each pair."""

from __future__ import annotations

import pytest

from router.cache.pair_guard.pair_rules import refusal

REPORTED = [
    # vllm-project/semantic-router 2691, 2728: opposite settings score .94 to .98
    ("How to turn on dark mode?", "How to turn off dark mode?"),
    ("Is port 6379 open by default?", "Is port 6379 closed by default?"),
    ("How do I enable two-factor login?", "How do I disable two-factor login?"),
    # vllm-project/semantic-router 160: calculations that differ in one number
    ("What is 15% of 200?", "What is 15% of 300?"),
    # langchain-ai/langchain-redis 22
    ("What is 1+1?", "What is 21+1?"),
    # zilliztech/GPTCache 694: a question and its reversal
    ("Does caffeine cause insomnia?", "Does insomnia cause caffeine?"),
    ("Can I convert a PDF to Word?", "Can I convert a Word to PDF?"),
    ("Is it safe to take ibuprofen before aspirin?", "Is it safe to take aspirin before ibuprofen?"),
    # the like of them
    ("Which plan includes support?", "Which plan excludes support?"),
    ("Is the API free for students?", "Is the API not free for students?"),
]

PARAPHRASES = [
    # langchain-ai/langchain 29517: these should be one question
    ("What is the capital of France?", "Can you tell me the capital city of France?"),
    # vllm-project/semantic-router 2728: controls
    ("How to turn on dark mode?", "How do I turn dark mode on?"),
    ("Is port 6379 open by default?", "By default, is port 6379 open?"),
]


@pytest.mark.parametrize(("one", "other"), REPORTED)
def test_a_reported_wrong_hit_is_refused(one: str, other: str) -> None:
    assert refusal(one, other) is not None


@pytest.mark.parametrize(("one", "other"), PARAPHRASES)
def test_a_reported_miss_is_not_refused(one: str, other: str) -> None:
    assert refusal(one, other) is None
