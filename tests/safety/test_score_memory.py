"""Scores that are remembered: of which texts, and for whom."""

from __future__ import annotations

import pytest

from safety.api import ClassifierUnavailableError
from safety.score_memory import RememberingClassifier, ScoreMemory
from tests.safety.scripted_classifier import ScriptedClassifier, scored


async def test_a_text_is_scored_once() -> None:
    classifier = ScriptedClassifier()
    remembering = RememberingClassifier(classifier)

    first = await remembering.classify(["HARM", "fine", "HARM"], "acme")
    second = await remembering.classify(["fine", "new", "HARM"], "acme")

    assert first == [scored("HARM"), scored("fine"), scored("HARM")]
    assert second == [scored("fine"), scored("new"), scored("HARM")]
    assert classifier.texts == ["HARM", "fine", "new"]


async def test_tenants_share_no_scores() -> None:
    classifier = ScriptedClassifier()
    remembering = RememberingClassifier(classifier)

    await remembering.classify(["fine"], "acme")
    await remembering.classify(["fine"], "other")

    assert classifier.texts == ["fine", "fine"]


async def test_another_version_scores_again() -> None:
    classifier = ScriptedClassifier()
    remembering = RememberingClassifier(classifier)
    await remembering.classify(["fine"])
    classifier.version = "scripted-2"

    await remembering.classify(["fine"])

    assert classifier.texts == ["fine", "fine"]
    assert remembering.version == "scripted-2"


async def test_a_failure_is_not_remembered() -> None:
    classifier = ScriptedClassifier(mode="dead")
    remembering = RememberingClassifier(classifier)
    with pytest.raises(ClassifierUnavailableError):
        await remembering.classify(["HARM"])
    classifier.mode = "well"

    assert await remembering.classify(["HARM"]) == [scored("HARM")]


@pytest.mark.parametrize("mode", ["nonsense", "short"])
async def test_nonsense_is_not_remembered(mode: str) -> None:
    classifier = ScriptedClassifier(mode=mode)
    remembering = RememberingClassifier(classifier)
    await remembering.classify(["HARM", "fine"])
    classifier.mode = "well"

    assert await remembering.classify(["HARM", "fine"]) == [scored("HARM"), scored("fine")]


async def test_the_memory_is_bounded() -> None:
    classifier, memory = ScriptedClassifier(), ScoreMemory(2)
    remembering = RememberingClassifier(classifier, memory)

    for text in ("a", "b", "a", "c", "a", "b"):
        await remembering.classify([text])

    assert len(memory) == 2
    assert classifier.texts == ["a", "b", "c", "b"], "the one that was not used for longest is dropped"
