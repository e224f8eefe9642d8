"""Which windows the second model is asked about, and what follows from its answers, failures and delays."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from safety.api import ClassifierBusyError, ClassifierUnavailableError
from safety.classifier.artefact import Artefact, ArtefactError, read_artefact
from safety.classifier.batching_classifier import SECOND_WINDOWS, BatchingClassifier
from safety.classifier.blending import MAX_ASKED, asked_windows
from safety.classifier.second_stage import MAX_INLINE_TEXT
from safety.encoder.batch_runner import BatchFacts
from tests.safety.artefacts import LABELS, config
from tests.safety.scripted_model import Scripted
from tests.safety.second_opinions import second_config

ASKED, SURE = "ghijklmnopqrstuvwxyz", "abcdef"
"""The first letters of words that the second model is asked about, and of others: ``Scripted`` scores by them."""


class ScriptedSecond:
    """A second model whose outputs are the last letter's. It waits for ``go``."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.labels = len(LABELS)
        self.cut_on: set[int] = set()  # threads
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    async def computes(self) -> None:
        """Waits until a batch is being computed."""
        assert await asyncio.to_thread(self.begun.wait, 10)

    def sequence(self, text: str) -> list[int]:
        self.cut_on.add(threading.get_ident())
        return list(text.encode())

    def logits(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append([bytes(tokens).decode() for tokens in batch])
        self.begun.set()
        assert self.go.wait(10)
        if any(tokens[-1] == ord("!") for tokens in batch):
            raise RuntimeError("the model broke")
        rows = [{ord("?"): np.nan, ord("+"): -np.inf}.get(tokens[-1], logit(tokens[-1])) for tokens in batch]
        return np.repeat(np.array(rows, np.float32)[:, None], self.labels, axis=1)


async def queued(classifier: BatchingClassifier, sequences: int, tenant: str = "") -> None:
    """Waits until ``sequences`` of a tenant wait for the second model."""
    assert classifier.second is not None
    async with asyncio.timeout(10):
        while classifier.second.runner.waiting(tenant) < sequences:  # noqa: ASYNC110 - a queue has no event
            await asyncio.sleep(0.001)


def logit(letter: int) -> float:
    return (letter - 110) / 4


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return described(tmp_path_factory.mktemp("classifier"), second_config())


def described(directory: Path, changes: dict[str, Any]) -> Artefact:
    (directory / "config.json").write_text(json.dumps(config(**changes)), encoding="utf-8")
    return read_artefact(directory)


@pytest.fixture
def first(artefact: Artefact) -> Scripted:
    return Scripted(artefact)


@pytest.fixture
def second() -> ScriptedSecond:
    return ScriptedSecond()


@pytest.fixture
def facts() -> list[BatchFacts]:
    return []


@pytest_asyncio.fixture
async def classifier(
    first: Scripted, second: ScriptedSecond, facts: list[BatchFacts]
) -> AsyncIterator[BatchingClassifier]:
    made = BatchingClassifier(first, on_batches=facts.append, second=second)
    yield made
    made.close()


def expected(word: str) -> list[float]:
    """The probability of each label, computed from the format's description."""
    found = []
    for place in range(len(LABELS)):
        alone = ord(word[0]) / 256
        if alone < 0.4:
            found.append(alone)
            continue
        first = (np.log(alone / (1 - alone)) - 0.1 * place) / (1.0 + place)
        blend = (0.5 + place) * first + (1.5 - 0.5 * place) * logit(ord(word[-1])) + place - 0.25
        found.append(float(1 / (1 + np.exp(-blend))))
    return found


async def test_windows_in_doubt_are_asked_and_the_worst_one_counts(
    classifier: BatchingClassifier, first: Scripted, second: ScriptedSecond
) -> None:
    text = "aa gb bz zt fz"
    (scores,) = await classifier.classify([text])
    assert second.batches == [["gb", "zt"]]
    worst = np.max([expected(word) for word in text.split()], axis=0)
    assert [*scores.categories.values(), scores.injection] == pytest.approx(worst, abs=1e-6)
    assert scores.flagged == (worst.max() >= 0.7)


async def test_a_second_opinion_clears_a_text_as_well_as_it_accuses_one(classifier: BatchingClassifier) -> None:
    cleared, accused = await classifier.classify(["za", "gz"])
    assert cleared.categories["violence"] < ord("a") / 256 < ord("g") / 256 < accused.categories["violence"]


@pytest.mark.parametrize(("length", "is_whole"), [(2, True), (22, True), (23, False), (999, False)])
async def test_a_window_that_could_not_be_read_to_its_end_is_judged_by_the_first_model(
    classifier: BatchingClassifier, second: ScriptedSecond, length: int, is_whole: bool
) -> None:
    """With its prefix and end, a sequence of the described model has at most 23 tokens."""
    mild, harmful = f"z{'a' * (length - 1)}", f"g{'z' * (length - 1)}"
    found = await classifier.classify([mild, harmful])
    alone = ord("z") / 256, ord("g") / 256
    both = expected(mild)[0], expected(harmful)[0]
    violence = [scores.categories["violence"] for scores in found]
    assert violence == pytest.approx(both if is_whole else alone, abs=1e-6)
    assert bool(second.batches) == is_whole
    assert both[0] < alone[0]
    assert alone[1] < both[1]


@pytest.mark.parametrize(("words", "is_inline"), [(1, True), (3, False)])
async def test_the_texts_of_a_call_are_cut_off_the_event_loop_if_they_are_long_together(
    classifier: BatchingClassifier, second: ScriptedSecond, words: int, is_inline: bool
) -> None:
    await classifier.classify(["a" * 9999, *["z" * (MAX_INLINE_TEXT // 2)] * words])
    assert second.cut_on == {threading.get_ident()} if is_inline else threading.get_ident() not in second.cut_on


async def test_nothing_is_asked_where_there_is_no_doubt(
    classifier: BatchingClassifier, second: ScriptedSecond, facts: list[BatchFacts]
) -> None:
    found = await classifier.classify(["a", "b f", ""])
    assert [round(each.injection * 256) for each in found] == [97, 102, 32]
    assert second.batches == []
    assert [each.model for each in facts] == ["classifier"]


@pytest.mark.parametrize(
    ("highest", "most", "asked"),
    [
        ([0.1, 0.2, 0.3], 9, [1, 2]),
        ([0.1, 0.19999], 9, []),
        ([0.5, 0.9, 0.3, 0.8], 2, [1, 3]),
        ([0.5, 0.5, 0.5], 2, [0, 1]),
        ([np.nan, 0.5], 9, [1]),
    ],
    ids=["from the gate on", "none", "the highest", "the first of equal ones", "no nonsense"],
)
def test_the_gate(highest: list[float], most: int, asked: list[int]) -> None:
    rows = np.zeros((len(highest), 3))
    rows[np.arange(len(highest)), np.arange(len(highest)) % 3] = highest
    assert asked_windows(rows, 0.2, most).tolist() == asked


async def test_of_a_long_text_the_worst_windows_are_asked_and_others_do_not_lose_by_it(
    classifier: BatchingClassifier, second: ScriptedSecond
) -> None:
    long = " ".join(["h0"] * 9 + ["z1"] * 10 + ["y2"] * (MAX_ASKED - 10) + ["h0"] * 9)
    (alone,) = await classifier.classify([long])
    assert list(chain(*second.batches)).count("z1") == 10
    assert list(chain(*second.batches)).count("y2") == MAX_ASKED - 10
    assert len(list(chain(*second.batches))) == MAX_ASKED
    assert alone.categories["violence"] == pytest.approx(ord("h") / 256, abs=1e-6)
    second.batches.clear()
    found = await classifier.classify([long, long, "gg"])
    assert found[:2] == [alone, alone]
    assert len(list(chain(*second.batches))) == 2 * MAX_ASKED + 1


WORDS = st.tuples(st.sampled_from(ASKED + SURE), st.sampled_from(ASKED)).map("".join)
TEXTS = st.lists(st.lists(WORDS, max_size=24).map(" ".join), min_size=1, max_size=6)


@given(TEXTS)
def test_a_text_has_the_same_scores_alone_and_among_others(artefact: Artefact, texts: list[str]) -> None:
    async def compared() -> None:
        classifier = BatchingClassifier(Scripted(artefact), max_batch_tokens=8, second=ScriptedSecond())
        together, *alone = await asyncio.gather(
            classifier.classify(texts), *(classifier.classify([text]) for text in texts)
        )
        assert [together] == [list(chain(*alone))]
        classifier.close()

    asyncio.run(compared())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z!", "the second opinion failed: RuntimeError"),
        ("zz z?", "nonsense: an output of the second opinion is no number"),
        ("z+", "nonsense: an output of the second opinion is no number"),
    ],
)
async def test_a_second_model_that_fails_is_an_unavailable_classifier(
    classifier: BatchingClassifier, text: str, message: str
) -> None:
    with pytest.raises(ClassifierUnavailableError, match=message):
        await classifier.classify(["a", text])
    assert len(await classifier.classify(["a", "zz"])) == 2


async def test_outputs_of_another_number_of_labels_are_nonsense(
    classifier: BatchingClassifier, second: ScriptedSecond
) -> None:
    second.labels = 1
    with pytest.raises(ClassifierUnavailableError, match="nonsense"):
        await classifier.classify(["z"])


async def test_a_broken_first_model_is_not_hidden_by_the_second(classifier: BatchingClassifier) -> None:
    for text, message in (("! zz", "the classifier failed"), ("? zz", "a score is nan")):
        with pytest.raises(ClassifierUnavailableError, match=message):
            await classifier.classify([text])


async def test_a_caller_that_leaves_takes_its_questions_along(first: Scripted, second: ScriptedSecond) -> None:
    classifier = BatchingClassifier(first, max_batch_tokens=1, second=second)
    second.go.clear()
    leaving = asyncio.create_task(classifier.classify(["ha ib jc"]))
    await second.computes()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    second.go.set()
    await classifier.classify(["zz"])
    assert second.batches == [["ha"], ["zz"]]
    classifier.close()


async def test_a_caller_that_leaves_before_asks_nothing(
    classifier: BatchingClassifier, first: Scripted, second: ScriptedSecond
) -> None:
    first.go.clear()
    leaving = asyncio.create_task(classifier.classify(["ha"]))
    await first.computes()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    first.go.set()
    await classifier.classify(["zz"])
    assert second.batches == [["zz"]]


async def test_tenants_take_turns_at_the_second_model_too(first: Scripted, second: ScriptedSecond) -> None:
    classifier = BatchingClassifier(first, max_batch_tokens=2, second=second)
    second.go.clear()
    flood = [asyncio.create_task(classifier.classify([f"h{letter}"], "busy")) for letter in "abcdefgh"]
    await second.computes()
    other = asyncio.create_task(classifier.classify(["zz"], "other"))
    await queued(classifier, 1, "other")
    second.go.set()
    await asyncio.gather(other, *flood)
    assert ["zz"] in second.batches[1:3]
    classifier.close()


async def test_an_urgent_call_is_urgent_at_the_second_model_too(first: Scripted, second: ScriptedSecond) -> None:
    classifier = BatchingClassifier(first, max_batch_tokens=2, second=second)
    second.go.clear()
    others = [asyncio.create_task(classifier.classify([f"h{letter}"])) for letter in "abcd"]
    await second.computes()
    urgent = asyncio.create_task(classifier.classify(["zz"], urgent=True))
    await queued(classifier, 4)
    second.go.set()
    await asyncio.gather(urgent, *others)
    assert second.batches[1] == ["zz"]
    classifier.close()


async def test_texts_without_doubt_do_not_wait_for_the_second_model(
    classifier: BatchingClassifier, second: ScriptedSecond
) -> None:
    second.go.clear()
    asked = asyncio.create_task(classifier.classify(["zz"]))
    await second.computes()
    async with asyncio.timeout(5):
        assert len(await classifier.classify(["a"])) == 1
    assert not asked.done()
    assert classifier.busy_s() > 0
    second.go.set()
    await asked
    assert classifier.busy_s() == 0


async def test_what_waits_for_the_second_model_counts_for_the_bound_of_a_tenant(
    first: Scripted, second: ScriptedSecond
) -> None:
    most = 4 * SECOND_WINDOWS
    classifier = BatchingClassifier(first, max_batch_tokens=1, max_tenant_windows=most, second=second)
    second.go.clear()
    waiting = asyncio.create_task(classifier.classify(["ha ib jc kd le"], "busy"))
    await second.computes()
    with pytest.raises(ClassifierBusyError, match=f"{most} windows"):
        await classifier.classify(["a b c d e"], "busy")
    assert len(await classifier.classify(["a b c d e"], "other")) == 1
    second.go.set()
    await waiting
    classifier.close()


async def test_the_batches_of_both_models_are_told(classifier: BatchingClassifier, facts: list[BatchFacts]) -> None:
    await classifier.classify(["a zz", "yy"])
    assert [(each.model, each.sequences, each.batches) for each in facts] == [
        ("classifier", 3, 1),
        ("second opinion", 2, 1),
    ]


def test_the_version_says_whether_a_second_model_is_asked(artefact: Artefact, tmp_path: Path) -> None:
    plain = described(tmp_path, {})
    made = [
        BatchingClassifier(Scripted(artefact), second=ScriptedSecond()),
        BatchingClassifier(Scripted(artefact)),
        BatchingClassifier(Scripted(plain)),
    ]
    assert [each.version for each in made] == ["tiny-1", "tiny-1-alone", "tiny-1"]
    with pytest.raises(ValueError, match="describe no second opinion"):
        BatchingClassifier(Scripted(plain), second=ScriptedSecond())


async def test_without_a_second_model_the_first_judges_alone(artefact: Artefact) -> None:
    classifier = BatchingClassifier(Scripted(artefact))
    (scores,) = await classifier.classify(["zz"])
    assert scores.injection == pytest.approx(ord("z") / 256, abs=1e-6)
    classifier.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (second_config(gate=1.5), r"second_opinion\.gate"),
        (second_config(file="../model.safetensors"), r"second_opinion\.file"),
        (second_config(tuned_from=3), r"second_opinion\.tuned_from"),
        (second_config(max_tokens=0), r"second_opinion\.max_tokens"),
        ({"second_opinion": second_config()["second_opinion"]}, "each has second_opinion, or none"),
        ({"labels": second_config()["labels"]}, "each has second_opinion, or none"),
    ],
)
def test_a_wrong_second_opinion_is_refused_with_its_place(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtefactError, match=message):
        described(tmp_path, changes)
