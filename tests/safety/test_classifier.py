"""Windows, calibration, batches and failures of the text classifier."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.api import ClassifierBusyError, ClassifierUnavailableError, Scores
from safety.classifier.artefact import ArtefactError, read_artefact
from safety.classifier.batching_classifier import BatchingClassifier
from safety.classifier.scoring import check_scores, probabilities, scores_of
from safety.classifier.window_classifier import WindowClassifier
from safety.classifier.windows import WindowSize, spans, windows
from safety.encoder.sequence_queue import SequenceQueue
from safety.encoder.word_pieces import MAX_LOCKED_CHARACTERS, WordPieces
from tests.safety.artefacts import LABELS, config
from tests.safety.scripted_model import Scripted, directory, scripted

__all__ = ["directory", "scripted"]

MODEL = Path(__file__).parents[2] / "deployments" / "models" / "safety"


@pytest.fixture(scope="module")
def model(directory: Path) -> WindowClassifier:
    return WindowClassifier(directory)


@given(st.integers(0, 300), st.integers(1, 40), st.data())
def test_windows_cover_a_text_and_none_is_short(length: int, tokens: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, tokens))
    cut = windows(range(length), WindowSize(tokens, stride))
    assert {piece for window in cut for piece in window} == set(range(length))
    assert all(len(window) == min(tokens, length) for window in cut)
    assert all(0 < after[0] - before[0] <= stride for before, after in pairwise(cut))


@pytest.mark.parametrize(
    ("length", "starts"), [(0, None), (126, [0]), (127, [0, 1]), (222, [0, 96]), (223, [0, 96, 97])]
)
def test_windows_start_where_the_format_says(length: int, starts: list[int] | None) -> None:
    cut = windows(range(length), WindowSize(126, 96))
    assert cut == [range(0)] if starts is None else [window[0] for window in cut] == starts


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces(MODEL / "vocab.txt")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Héllo wörld, again", ["Héllo wörld", ", again"]),
        ("e\u0301te\u0301 E\u0301TE\u0301", ["e\u0301te\u0301 ", "E\u0301TE\u0301"]),
        ("中文字 ok", ["中文", "字 ok"]),
        ("👨\u200d👩\u200d👧 hi 🙂!", ["👨\u200d👩\u200d👧 hi ", "🙂!"]),
        (
            "\u200bki\u200bll  \u200b him\u200b now\u200b",
            ["\u200bki\u200bll  \u200b him\u200b ", "him\u200b now\u200b"],
        ),
        ("\u200b\u200d ", ["\u200b\u200d "]),
        ("", [""]),
        ("한", ["한", "한"]),
    ],
    ids=["accents", "combining accents", "CJK", "emoji", "zero-width", "no pieces", "empty", "a syllable of three"],
)
def test_the_span_of_a_window_is_of_the_original_text(pieces: WordPieces, text: str, found: list[str]) -> None:
    cut = spans(pieces.offsets(text), len(text), WindowSize(2, 2))
    assert [text[start:end] for start, end in cut][: len(found)] == found


LETTERS = st.sampled_from("abzéÜßİﬁ中한ا🙂\u0301\u200b\u200d\x00 .,1\n")


@given(st.text(LETTERS) | st.text(), st.integers(1, 6), st.data())
def test_spans_have_the_pieces_of_their_windows_and_cover_the_text(
    pieces: WordPieces, text: str, tokens: int, data: st.DataObject
) -> None:
    size = WindowSize(tokens, data.draw(st.integers(1, tokens)))
    offsets, cut = pieces.offsets(text), windows(pieces(text), size)
    found = spans(offsets, len(text), size)
    assert len(found) == len(cut)
    assert (found[0][0], found[-1][1]) == (0, len(text))
    assert all(before[0] <= after[0] <= before[1] <= after[1] for before, after in pairwise(found))
    for (start, end), places in zip(found, windows(range(len(offsets)), size), strict=True):
        assert all(start <= offsets[place][0] < offsets[place][1] <= end for place in places)


@given(st.text(LETTERS | st.sampled_from("👍🏽🇩❤\ufe0f🔪")))
def test_windows_and_their_spans_are_as_many_in_texts_with_emoji(model: WindowClassifier, text: str) -> None:
    found = model.spans(text)

    assert len(found) == len(model.windows(text))
    assert (found[0][0], found[-1][1]) == (0, len(text))


def test_a_long_text_has_the_pieces_and_offsets_of_its_parts(pieces: WordPieces) -> None:
    part = "Ünbelievable \u200btexts, [SEP] 你好 한글. "
    times = MAX_LOCKED_CHARACTERS // len(part) + 1
    assert pieces(part * times) == pieces(part) * times
    assert pieces.offsets(part * times) == [
        (begin + len(part) * place, end + len(part) * place)
        for place in range(times)
        for begin, end in pieces.offsets(part)
    ]


def test_the_span_of_whole_words_has_their_pieces_again(pieces: WordPieces) -> None:
    text = " ".join(["Straßenbahn Zürich costs 1,000 中文 naïve\u0301 e\u200bgg"] * 30)
    whole = pieces(text)
    ((start, end), *_), (first, *_) = (
        spans(pieces.offsets(text), len(text), WindowSize(40, 40)),
        windows(whole, WindowSize(40, 40)),
    )
    assert pieces(text[start:end]) == list(first)


def test_special_tokens_in_a_text_are_text(model: WindowClassifier) -> None:
    plain, marked = model.windows("hi")[0], model.windows("hi [SEP] [CLS]")[0]
    assert marked.count(plain[0]) == marked.count(plain[-1]) == 1
    assert len(marked) > len(plain) + 2


def test_the_worst_window_counts(model: WindowClassifier) -> None:
    text = "the bomb hi " * 40
    cut = model.windows(text)
    assert len(cut) > 3
    each = model.score(cut)
    scores = scores_of(each, model.artefact)
    assert scores.injection == each[:, LABELS.index("injection")].max()
    assert scores.categories == {"violence": each[:, 0].max(), "harmful": each[:, 1].max()}


def test_calibration_is_by_label(model: WindowClassifier) -> None:
    rows = probabilities(np.array([[0.0, 1.0, -2.0], [800, -800, 0]], np.float32), model.artefact)
    logits = np.array([[0.0, 2.1, -5.8]])
    np.testing.assert_allclose(rows[:1], 1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(rows[1, :2], [1, 0])


@pytest.mark.parametrize(("score", "flagged"), [(0.69, False), (0.7, True)])
def test_a_text_is_flagged_from_the_threshold_on(model: WindowClassifier, score: float, flagged: bool) -> None:
    for label in range(len(LABELS)):
        rows = np.zeros((2, len(LABELS)))
        rows[1, label] = score
        assert scores_of(rows, model.artefact).flagged is flagged


async def test_scores_do_not_depend_on_the_batch(model: WindowClassifier) -> None:
    texts = ["hi", "the bomb " * 60, "", "a-b [c]!", "x" * 300]
    classifier = BatchingClassifier(model)
    together = await classifier.classify(texts)
    assert classifier.runner.batches < classifier.runner.sequences
    for text, scores in zip(texts, together, strict=True):
        (alone,) = await classifier.classify([text])
        assert alone.categories == pytest.approx(scores.categories, abs=1e-5)
        assert alone.injection == pytest.approx(scores.injection, abs=1e-5)
    classifier.close()


async def test_texts_that_arrive_during_a_batch_are_the_next_one(scripted: Scripted) -> None:
    classifier = BatchingClassifier(scripted)
    scripted.go.clear()
    first = asyncio.create_task(classifier.classify(["a"]))
    await scripted.computes()
    others = [asyncio.create_task(classifier.classify([letter])) for letter in "bcde"]
    await asyncio.sleep(0.01)  # they are queued
    scripted.go.set()
    scores = await asyncio.gather(first, *others)
    assert [round(each.injection * 256, 3) for (each,) in scores] == list(b"abcde")
    assert scripted.batches == [["a"], ["b", "c", "d", "e"]]
    classifier.close()


async def test_a_long_text_does_not_hold_up_a_short_one(scripted: Scripted) -> None:
    classifier = BatchingClassifier(scripted, max_batch_tokens=2)
    scripted.go.clear()
    long = asyncio.create_task(classifier.classify(["a b c d e f g h"]))
    await scripted.computes()
    short = asyncio.create_task(classifier.classify(["z"]))
    await asyncio.sleep(0.01)  # they are queued
    scripted.go.set()
    await asyncio.gather(short, long)
    assert scripted.batches[1] == ["z", "c"]
    classifier.close()


async def test_many_long_texts_of_a_tenant_delay_another_by_a_batch(scripted: Scripted) -> None:
    classifier = BatchingClassifier(scripted, max_batch_tokens=4)
    scripted.go.clear()
    long = [asyncio.create_task(classifier.classify(["a b c d e f g h"], "busy")) for _ in range(20)]
    await scripted.computes()
    short = [asyncio.create_task(classifier.classify([letter], tenant)) for letter, tenant in ("y1", "z2")]
    await asyncio.sleep(0.01)  # they are queued
    scripted.go.set()
    await asyncio.gather(*short, *long)
    assert {"y", "z"} <= set(scripted.batches[1])
    classifier.close()


async def test_what_waits_of_a_tenant_is_bounded_and_others_are_served(scripted: Scripted) -> None:
    classifier = BatchingClassifier(scripted, max_batch_tokens=1, max_tenant_windows=4)
    scripted.go.clear()
    one = asyncio.create_task(classifier.classify(["a b c d e f"], "busy"))  # longer than the bound, but alone
    await scripted.computes()
    with pytest.raises(ClassifierBusyError):
        await classifier.classify(["g h i j k"], "busy")
    other = asyncio.create_task(classifier.classify(["z"], "other"))
    scripted.go.set()
    await asyncio.gather(one, other)
    assert len(await classifier.classify(["g h i j k"], "busy")) == 1
    classifier.close()


async def test_a_short_text_waits_for_a_turn_whatever_else_of_its_tenant_does(scripted: Scripted) -> None:
    """Checks of answers are short: refused, they would end every answer of the tenant."""
    classifier = BatchingClassifier(scripted, max_batch_tokens=1, max_tenant_windows=4)
    scripted.go.clear()
    long = asyncio.create_task(classifier.classify(["a b c d e f"], "busy"))
    await scripted.computes()
    short = asyncio.create_task(classifier.classify(["z"], "busy"))
    await asyncio.sleep(0.01)  # it is queued
    scripted.go.set()
    await asyncio.gather(long, short)
    assert scripted.batches[:2] == [["a"], ["z"]]
    classifier.close()


async def test_an_urgent_call_comes_before_checks_that_are_not(scripted: Scripted) -> None:
    classifier = BatchingClassifier(scripted, max_batch_tokens=1)
    scripted.go.clear()
    first = asyncio.create_task(classifier.classify(["a"]))
    await scripted.computes()
    beside = [asyncio.create_task(classifier.classify([letter], "acme")) for letter in "bcd"]
    await asyncio.sleep(0.01)  # they are queued
    urgent = asyncio.create_task(classifier.classify(["z"], "acme", urgent=True))
    await asyncio.sleep(0.01)
    scripted.go.set()
    await asyncio.gather(first, *beside, urgent)
    assert scripted.batches[:2] == [["a"], ["z"]]
    classifier.close()


async def test_a_caller_that_leaves_takes_its_windows_along(scripted: Scripted) -> None:
    classifier = BatchingClassifier(scripted, max_batch_tokens=1)
    scripted.go.clear()
    leaving = asyncio.create_task(classifier.classify(["a b c d"]))
    await scripted.computes()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    scripted.go.set()
    await classifier.classify(["z"])
    assert scripted.batches == [["a"], ["z"]]
    classifier.close()


@pytest.mark.parametrize(("text", "message"), [("!", "failed: RuntimeError"), ("a ?", "nonsense: a score is nan")])
async def test_a_broken_model_is_unavailable_and_goes_on(scripted: Scripted, text: str, message: str) -> None:
    classifier = BatchingClassifier(scripted)
    with pytest.raises(ClassifierUnavailableError, match=message):
        await classifier.classify([text])
    assert (await classifier.classify(["a"]))[0].injection == pytest.approx(ord("a") / 256, abs=1e-6)
    classifier.close()


TEXT: Any = "0.5"
GOOD = Scores({"violence": 0.5}, 0.25, flagged=False)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"scores": 1},
        [],
        [GOOD, GOOD],
        ["0.5"],
        [replace(GOOD, injection=float("nan"))],
        [replace(GOOD, injection=1.5)],
        [replace(GOOD, categories={})],
        [replace(GOOD, categories={"violence": -0.1})],
        [replace(GOOD, categories={"violence": TEXT})],
    ],
    ids=repr,
)
def test_nonsense_is_no_answer(answer: Any) -> None:
    assert check_scores([GOOD], 1) == [GOOD]
    with pytest.raises(ClassifierUnavailableError, match="nonsense"):
        check_scores(answer, 1)


def test_a_batch_holds_no_more_tokens_than_it_may_padding_included() -> None:
    """A long window between many short ones would otherwise take the memory of as many long ones."""
    queue: SequenceQueue[object] = SequenceQueue(6)
    one, two = object(), object()
    queue.add(one, [[1] * 9, [1] * 2, [1] * 2])
    queue.add(two, [[1] * 3, [1]])
    sizes = []
    while batch := queue.next_batch():
        sizes.append([len(window.tokens) for window in batch])
    assert sizes == [[3, 1], [9], [2, 2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": ""}, "version"),
        ({"labels": config()["labels"][:2]}, "exactly one has the kind injection"),
        ({"labels": config()["labels"][2:] * 2}, "two have one name"),
        ({"window": {"tokens": 39, "stride": 20}}, "exceeds architecture.positions"),
        ({"window": {"tokens": 10, "stride": 11}}, "stride must be from 1 to tokens"),
    ],
)
def test_a_wrong_artefact_is_refused_with_its_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config(**changes)), encoding="utf-8")
    with pytest.raises(ArtefactError, match=message):
        read_artefact(tmp_path)
