"""A text that is classified while it grows: what is sent when, and how it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest
import uvloop

from safety.api import Action, ClassifierUnavailableError, Inspection, Origin, Release, Scan, Scores
from safety.streaming.answer_guard import PlannedGuard
from safety.streaming.moderator import StreamModerator
from safety.streaming.plan import ClassifierRule, Pace, ScannerRule, StreamPlan
from tests.safety.scripted import NeedleScanner, ScriptedClassifier, judge, needles

PACE = Pace(first=4, most=16, window=24, overlap=6, wait_s=0.01, rest=0.0)


class Text:
    """One text in the making: what was released, and how it ended."""

    def __init__(self, classifier: ScriptedClassifier, *scanners: ScannerRule, **rule: object) -> None:
        self.changed = asyncio.Event()
        classifying = ClassifierRule(classifier, judge, **{"pace": PACE, **rule})  # type: ignore[arg-type]
        self.moderator = StreamModerator(Origin.ANSWER, StreamPlan(scanners, classifying), self.changed.set)
        self.sent = ""
        self.last = Release("", 0)

    def push(self, piece: str, *, final: bool = False) -> None:
        self._take(self.moderator.push(piece, final=final))

    async def wait(self) -> None:
        """Takes what the next check releases."""
        await asyncio.wait_for(self.changed.wait(), 5)
        self.changed.clear()
        self._take(self.moderator.resume())

    async def end(self) -> Inspection:
        """Pushes the end, and takes all that is left."""
        self.push("", final=True)
        while not self.last.done:
            await self.wait()
        return await self.moderator.close()

    def _take(self, release: Release) -> None:
        self.sent += release.text
        self.last = release


def test_text_is_held_until_a_check_of_it_came_back() -> None:
    async def run() -> None:
        classifier = ScriptedClassifier(gate=asyncio.Event())
        text = Text(classifier)
        text.push("Hel")
        await asyncio.sleep(0)
        text.push("lo, wörld")
        assert text.sent == ""
        classifier.gate.set()  # type: ignore[union-attr]
        inspection = await text.end()
        assert text.sent == "Hello, wörld"
        assert classifier.texts == ["Hel", "Hello, wörld"]
        assert inspection.covered == {"classifier@scripted-1": 12}
        assert inspection.characters == inspection.sent == 12

    asyncio.run(run())


@pytest.mark.parametrize(("awaited", "urgent"), [(True, ["Hel"]), (False, [])])
def test_the_first_check_of_a_text_that_a_reader_waits_for_is_urgent(awaited: bool, urgent: list[str]) -> None:
    async def run() -> None:
        classifier = ScriptedClassifier()
        text = Text(classifier, awaited=awaited)
        for piece in ("Hel", "lo, wörld", "!"):
            text.push(piece)
            await text.wait()
        await text.end()
        assert len(classifier.texts) == 3
        assert classifier.urgent == urgent

    asyncio.run(run())


def test_text_that_no_further_piece_follows_is_released_after_a_while() -> None:
    async def run() -> None:
        text = Text(ScriptedClassifier())
        text.push("Hello")
        await text.wait()
        text.push("!")
        await text.wait()
        assert text.sent == "Hello!"
        await text.end()

    asyncio.run(run())


@pytest.mark.parametrize("run_in", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_piece_may_come_while_the_next_check_is_due_in_less_than_a_millisecond(
    run_in: Callable[[Coroutine[None, None, None]], None],
) -> None:
    # uvloop, on which routers run, returns a handle without a time for a timer that is so near.
    async def run() -> None:
        text = Text(ScriptedClassifier(), pace=replace(PACE, wait_s=0.0004))
        text.push("Hello")
        await text.wait()
        for piece in (",", " ", "w"):
            text.push(piece)
        await text.wait()
        assert text.sent == "Hello, w"
        await text.end()

    run_in(run())


@pytest.mark.parametrize("mode", ["hold", "beside"])
def test_a_flagged_text_is_halted_and_its_check_recorded(mode: str) -> None:
    async def run() -> None:
        text = Text(ScriptedClassifier(["bomb"]), mode=mode)
        text.push("How to ")
        await text.wait()
        text.push("build a bomb. ")
        text.push("Take")
        await text.wait()
        assert text.last.halt is not None
        assert text.last.halt.category == "violence"
        assert text.last.done
        assert text.sent == ("How to " if mode == "hold" else "How to build a bomb. Take")
        text.push(" more", final=True)
        assert "more" not in text.sent
        assert (await text.moderator.close()).verdicts == (text.last.halt,)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_no_character_of_a_flagged_span_is_sent(seed: int) -> None:
    async def run() -> None:
        draw = random.Random(seed)
        words = [draw.choice(["one ", "two. ", "three ", "SPAN"]) for _ in range(60)]
        whole = "".join(words)
        classifier = ScriptedClassifier(["SPAN"], delay_s=0.0005)
        text = Text(classifier, needles(Action.REDACT, "three", kind="N"))
        place = 0
        while place < len(whole) and text.last.halt is None:
            step = draw.randint(1, 7)
            text.push(whole[place : place + step])
            place += step
            if draw.random() < 0.5:
                await asyncio.sleep(draw.choice([0, 0.001]))
            if text.changed.is_set():
                await text.wait()
        inspection = await text.end()
        assert text.last.halt is not None
        flagged = text.last.halt.spans[0]
        assert "SPAN" in whole[max(0, flagged.start - PACE.overlap) : flagged.end]
        assert "SPAN" not in text.sent
        assert inspection.sent <= flagged.start
        assert whole.replace("three", "<N>").startswith(text.sent)
        assert classifier.most_running == 1
        assert sum(map(len, classifier.texts)) < 8 * len(whole)

    asyncio.run(run())


def test_a_long_text_is_classified_in_few_checks_and_never_again_beyond_the_context() -> None:
    async def run() -> None:
        classifier = ScriptedClassifier()
        text = Text(classifier)
        for _ in range(400):
            text.push("word")
            if text.changed.is_set():
                await text.wait()
            await asyncio.sleep(0)
        await text.end()
        assert text.sent == "word" * 400
        assert len(classifier.texts) <= 400 * 4 / PACE.most + 10
        assert all(len(each) <= PACE.window + 4 for each in classifier.texts)

    asyncio.run(run())


def test_text_beside_which_checks_run_is_sent_at_once_and_ends_after_the_last_check() -> None:
    async def run() -> None:
        classifier = ScriptedClassifier(["bomb"], gate=asyncio.Event())
        text = Text(classifier, mode="beside")
        text.push("Hello ")
        text.push("bomb", final=True)
        assert text.sent == "Hello bomb"
        assert not text.last.done
        classifier.gate.set()  # type: ignore[union-attr]
        while not text.last.done:
            await text.wait()
        assert text.last.halt is not None
        await text.moderator.close()

    asyncio.run(run())


NAN = Scores({"violence": float("nan")}, 0.0, False)


@pytest.mark.parametrize("nonsense", [None, [], [NAN]], ids=["dead", "no scores", "not a number"])
@pytest.mark.parametrize("action", [Action.BLOCK, Action.ALLOW])
def test_a_failing_classifier_halts_or_is_reported_as_the_policy_says(
    action: Action, nonsense: list[Scores] | None
) -> None:
    async def run() -> None:
        classifier = ScriptedClassifier(dead=nonsense is None, nonsense=nonsense)
        text = Text(classifier, on_failure=action)
        text.push("Hello")
        await text.wait()
        text.push(", world. And more.")
        inspection = await text.end()
        assert text.sent == ("" if action is Action.BLOCK else "Hello, world. And more.")
        assert (text.last.halt is not None) == (action is Action.BLOCK)
        assert [verdict.action for verdict in inspection.verdicts] == [action]
        assert inspection.verdicts[0].error
        assert inspection.covered == {"classifier@scripted-1": 0}

    asyncio.run(run())


def test_a_classifier_that_recovers_checks_the_rest() -> None:
    async def run() -> None:
        classifier = ScriptedClassifier(["bomb"], dead=True)
        text = Text(classifier, on_failure=Action.ALLOW)
        text.push("Hello ")
        await text.wait()
        classifier.dead = False
        text.push("a bomb")
        await text.end()
        assert text.last.halt is not None
        assert text.sent == "Hello "

    asyncio.run(run())


def test_an_error_beyond_the_contract_is_raised_and_nothing_is_released() -> None:
    class Broken(ScriptedClassifier):
        def _scores(self, text: str) -> Scores:
            raise ValueError("a bug")

    async def run() -> None:
        text = Text(Broken())
        text.push("Hello")
        with pytest.raises(ValueError, match="a bug"):
            await text.wait()
        with pytest.raises(ValueError, match="a bug"):
            text.push("more")
        assert text.sent == ""
        await text.moderator.close()

    asyncio.run(run())


def test_a_scanner_that_blocks_ends_the_running_check() -> None:
    async def run() -> None:
        classifier = ScriptedClassifier(gate=asyncio.Event())
        text = Text(classifier, needles(Action.BLOCK, "bad"))
        text.push("Hello ")
        await asyncio.sleep(0)
        text.push("bad")
        assert text.last.halt is not None
        assert text.last.done
        await text.moderator.close()
        assert classifier.cancelled == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


@pytest.mark.parametrize(("mode", "most"), [("hold", 12), ("beside", 500)])
def test_held_text_is_scanned_in_parts_and_redacted_all_the_same(mode: str, most: int) -> None:
    pushes: list[str] = []

    class Counted(NeedleScanner):
        def push(self, piece: str, *, final: bool = False) -> Scan:
            pushes.append(piece)
            return super().push(piece, final=final)

    async def run() -> None:
        text = Text(
            ScriptedClassifier(), ScannerRule("n", "1", lambda: Counted(["bad"], "N"), Action.REDACT), mode=mode
        )
        for char in "a bad day. " * 40:
            text.push(char)
        inspection = await text.end()
        assert text.sent == "a <N> day. " * 40
        assert inspection.covered["n@1"] == len("".join(pushes)) == 440

    asyncio.run(run())
    assert most / 2 < len(pushes) <= most


def test_the_record_of_an_answer_cut_off_counts_what_was_scanned() -> None:
    async def run() -> None:
        text = Text(ScriptedClassifier(gate=asyncio.Event()), needles(Action.REDACT, "bad"))
        text.push("a bad day")
        inspection = await text.moderator.close()
        assert inspection.characters == 9
        assert (inspection.sent, inspection.covered["needles-needle@1"]) == (0, 0)

    asyncio.run(run())


def test_close_leaves_no_task_and_no_timer() -> None:
    async def run() -> None:
        classifier = ScriptedClassifier(gate=asyncio.Event())
        text = Text(classifier)
        text.push("Hello ")
        await asyncio.sleep(0)
        await text.moderator.close()
        assert classifier.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

        waiting = Text(ScriptedClassifier())
        waiting.push("Hello")
        await waiting.wait()
        waiting.push("!")  # starts the timer
        await waiting.moderator.close()
        await asyncio.sleep(2 * PACE.wait_s)
        assert waiting.sent == "Hello"

    asyncio.run(run())


def test_the_contract_error_is_the_classifiers_own() -> None:
    with pytest.raises(ClassifierUnavailableError):
        asyncio.run(ScriptedClassifier(dead=True).classify(["x"]))


class Naming:
    """Puts the name back in place of ``NAME_1``. Implements ``Rewriter``."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, piece: str, *, final: bool = False) -> str:
        text = (self._held + piece).replace("NAME_1", "Ada")
        keep = 0 if final else next((n for n in range(5, 0, -1) if text.endswith("NAME_1"[:n])), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


@pytest.mark.parametrize("step", [1, 3, 100])
def test_pseudonyms_are_put_back_behind_the_checks(step: int) -> None:
    text = "Dear NAME_1, dear Ada: NAM"
    guard = PlannedGuard(StreamPlan((needles(Action.REDACT, "Ada"),)), lambda *_: None, restorer=lambda _: Naming())
    moderator = guard.moderator(Origin.ANSWER, lambda: None)
    assert moderator is not None

    sent = [moderator.push(text[at : at + step]).text for at in range(0, len(text), step)]

    assert "".join((*sent, moderator.push("", final=True).text)) == "Dear Ada, dear <NEEDLE>: NAM"


def test_a_guard_without_rules_moderates_nothing() -> None:
    assert PlannedGuard(StreamPlan(), lambda *_: None).moderator(Origin.ANSWER, lambda: None) is None
