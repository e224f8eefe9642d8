"""The measurement of streams: it passes with the guard, and sees every leak without it."""

from __future__ import annotations

import argparse
import asyncio

import pytest

from load_tests.safety.measured_classifier import QuietClassifier, classifier_of
from load_tests.safety.planted import Planted, PlantedText
from load_tests.safety.streams import cases, run

OPTIONS = argparse.Namespace(streams=8, pace_ms=0.0)
QUIET = QuietClassifier(0.0005)


@pytest.mark.parametrize("mode", ["scanners", "hold", "beside"])
def test_nothing_planted_reaches_the_client_and_the_rest_is_unchanged(mode: str) -> None:
    outcome = asyncio.run(run(mode, cases(60, seed=5), OPTIONS, QUIET))

    assert outcome.problems == []
    assert set(outcome.planted) == {"email", "card", "key", "phrase"}
    assert outcome.hold_back is not None
    assert outcome.hold_back.halts >= outcome.halted > 0


def test_every_leak_is_seen() -> None:
    made = [case for case in cases(60, seed=5) if any(text.planted for text in case.texts)]

    outcome = asyncio.run(run("none", made, OPTIONS, QUIET))

    assert {problem.split(" (")[0] for problem in outcome.problems} == {case.name for case in made}


def test_the_shipped_model_checks_the_streams_too() -> None:
    with classifier_of("in-process", 0.0) as classifier:
        outcome = asyncio.run(run("hold", cases(8, seed=5), OPTIONS, classifier))

    assert outcome.problems == []
    assert outcome.check_ms["p50"] > 0


TEXT = PlantedText(("see ", Planted("a@b.org", "email"), " and ", Planted("zorblax", "phrase"), " end"))


@pytest.mark.parametrize("received", ["", "se", "see ", "see <EMAIL>", "see <EMAIL> and "])
def test_a_text_may_end_anywhere_before_its_phrase(received: str) -> None:
    assert TEXT.problem(received) is None


@pytest.mark.parametrize("received", ["see a", "see a@b.org and ", "see <EMAIL> an z", "see <EMAIL> and z", "x"])
def test_planted_or_changed_text_is_a_problem(received: str) -> None:
    assert TEXT.problem(received) is not None
