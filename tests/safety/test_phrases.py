"""Phrases of a list are found in any disguise and in any pieces, at word borders, and not in harmless words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safety.api import Action, Origin, Passage
from safety.phrases.automaton import PhraseAutomaton
from safety.phrases.check import PhraseCheck
from safety.phrases.letters import MAX_IGNORED
from safety.phrases.phrase import Phrase
from safety.phrases.scanner import PhraseScanner
from safety.text.folding import is_unspaced
from safety.text.normalised import Letter, Normaliser
from tests.safety.streams import CUTS, assert_scans_in_pieces, pieces_of

BLOCKED = ["ass", "bomb", "kill", "kill yourself", "deskin", "rapist", "炸弹", "🍆", "dropped table"]


def automaton(blocked: Sequence[str] = BLOCKED, allowed: Sequence[str] = (), *, leet: bool = False) -> PhraseAutomaton:
    return PhraseAutomaton([Phrase(text) for text in blocked], allowed, leet=leet)


def found(text: str, compiled: PhraseAutomaton) -> list[str]:
    return [text[span.start : span.end] for span in PhraseScanner(compiled).push(text, final=True).found]


@pytest.mark.parametrize(
    "text",
    [
        "bomb",
        "a BOMB.",
        "b o m b",
        "make a b-o-m-b now",
        "B\u0301O\u200bM\u00adB",
        "bоmb",
        "🅱🅾🅼🅱",
        "ⓑ.ⓞ.ⓜ.ⓑ",
        "_bomb_",
        "**bomb**",
        "炸bomb弹",
        "bomb🇺🇸",
        "kill\n\nyourself",
        "k i l l  yourself",
        "kill-yourself",
        "做炸弹吗",
        "炸 弹",
        "🍆🍆",
        "bo\u3164mb",
    ],
)
def test_a_phrase_is_found_in_disguise(text: str) -> None:
    assert found(text, automaton())


@pytest.mark.parametrize(
    "text",
    [
        "class assume bass",
        "bombs",
        "bo mb",
        "as s",
        "pass the class",
        "a desk in the background",  # words are not joined
        "therapist",
        "killyourself",
        "skill",
        "dropped the table",
    ],
)
def test_harmless_words_are_not_found(text: str) -> None:
    assert not found(text, automaton())


def test_the_longest_phrase_counts_and_the_allowlist_covers() -> None:
    compiled = automaton(allowed=["kill process", "how to kill a process"])

    assert found("kill yourself", compiled) == ["kill yourself"]
    assert found("kill process, how to kill a process", compiled) == []
    assert found("kill processes; how to kill", compiled) == ["kill", "kill"]


def test_overlapping_phrases_leave_nothing_of_either() -> None:
    compiled = automaton(["red green", "green blue"])

    assert found("red green blue", compiled) == ["red green", " blue"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b0mb", ["b0mb"]),
        ("a$$!", ["a$$"]),
        ("@ss", ["@ss"]),
        ("455", []),
        ("ca", []),
        ("c4", ["c4"]),
        ("$bomb$", ["bomb"]),
    ],
)
def test_leetspeak_is_read_on_request(text: str, expected: list[str]) -> None:
    assert found(text, automaton(["ass", "bomb", "c4"], leet=True)) == expected


@pytest.mark.parametrize("text", ["", "...", "c++", "a", "x" * 300])
def test_a_phrase_that_cannot_be_found_exactly_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="phrase"):
        automaton([text])


# Right answers where public filters were reported wrong.


@pytest.mark.parametrize(
    ("blocked", "text", "expected"),
    [
        (["exec", "alter", "or 1"], "Can the executive alternate for 10 or 15 minutes?", []),
        (["keyword01", "keyword02"], "Keyword02 Keyword01 Keyword02", ["Keyword02", "Keyword01", "Keyword02"]),
        (["bomb"], "\u0130\u0130 \u0130stanbul bomb \u0130", ["bomb"]),  # a letter that is two in lower case
        (["istanbul"], "\u0130STANBUL", ["\u0130STANBUL"]),
        (["rec"], "Pre-Chours", []),
        (["inappropriate"], "in\u200bappro\u00adpriate", ["in\u200bappro\u00adpriate"]),
        (["internal logs"], "all \u0456nt\u0435rna\u217c l\u043eg\u0455", ["\u0456nt\u0435rna\u217c l\u043eg\u0455"]),
        (["previous directions"], "disregard\nyour\nprevious\ndirections", ["previous\ndirections"]),
        (["nike"], "n ike and a nik e", []),
    ],
)
def test_reported_faults_of_other_filters_are_none_here(blocked: list[str], text: str, expected: list[str]) -> None:
    assert found(text, automaton(blocked)) == expected


# What the automaton finds is what a search of every phrase at every letter finds.

ALPHABET = "aabbc  -\u0301\u200bß炸@4Á\n"
SHORT = st.text(alphabet="abc s炸4 ", min_size=2, max_size=5).filter(lambda text: len(text.replace(" ", "")) > 1)


def matches(text: str, phrase: str) -> list[tuple[int, int]]:
    letters, wanted = Normaliser().push(text), Normaliser().push(phrase)
    places = []
    for first in range(len(letters) - len(wanted) + 1):
        part = letters[first : first + len(wanted)]
        after = letters[first + len(wanted)] if first + len(wanted) < len(letters) else None
        before = letters[first - 1] if first else None
        if (
            [letter.text for letter in part] == [letter.text for letter in wanted]
            and not (before and before.start == part[0].start)
            and not (after and after.start == part[-1].start)
            and (before is None or part[0].spaced or is_unspaced(before.text) or is_unspaced(part[0].text))
            and (after is None or after.spaced or is_unspaced(after.text) or is_unspaced(part[-1].text))
            and spaces_fit(part, wanted)
        ):
            places.append((part[0].start, part[-1].end))
    return places


def spaces_fit(part: list[Letter], wanted: list[Letter]) -> bool:
    words: list[set[bool]] = [set()]
    for previous, letter, want in zip(wanted, part[1:], wanted[1:], strict=False):
        if is_unspaced(previous.text) or is_unspaced(want.text):
            continue
        if want.spaced:
            if not letter.spaced:
                return False
            words.append(set())
        else:
            words[-1].add(letter.spaced)
    spaced_out = any(True in word for word in words)
    return all(len(word) < 2 for word in words) and (len(part) > 2 or not spaced_out)


@given(st.text(alphabet=ALPHABET, max_size=30), st.lists(SHORT, min_size=1, max_size=4), CUTS)
@example("ab ab", ["ab", "ab a"], [1])
@example("a炸b", ["a炸", "炸b"], [2])
def test_the_automaton_finds_what_a_search_for_each_phrase_finds(
    text: str, phrases: list[str], cuts: list[int]
) -> None:
    compiled = automaton(phrases)

    spans = assert_scans_in_pieces(
        lambda: PhraseScanner(compiled), pieces_of(text, cuts), compiled.max_extent + MAX_IGNORED
    )

    expected = {index for phrase in phrases for start, end in matches(text, phrase) for index in range(start, end)}
    assert {index for span in spans for index in range(span.start, span.end)} == expected


@given(
    st.lists(
        st.sampled_from(["kill ", "k i l l ", "process", "the ", "yourself", "\u200b", "-", "b0mb", "b", "o", "m"])
    ),
    CUTS,
    st.booleans(),
)
def test_pieces_find_what_the_whole_has_with_an_allowlist_and_leetspeak(
    words: list[str], cuts: list[int], leet: bool
) -> None:
    compiled = automaton(["kill", "kill yourself", "bomb", "process the"], ["the kill process", "kill b"], leet=leet)
    text = "".join(words)

    assert_scans_in_pieces(lambda: PhraseScanner(compiled), pieces_of(text, cuts), compiled.max_extent + MAX_IGNORED)


@pytest.mark.parametrize("filler", ["\u200b", " ", "\u0301", "-\u200b"])
def test_hold_back_is_bounded_however_much_filler_follows(filler: str) -> None:
    compiled = automaton(["kill yourself"])
    pieces = ["kill", *[filler] * 400, "yourself"]

    assert_scans_in_pieces(lambda: PhraseScanner(compiled), pieces, compiled.max_extent + MAX_IGNORED)


def test_nothing_is_held_where_no_phrase_begins() -> None:
    scanner = PhraseScanner(automaton())
    length = 0
    for piece in ["The ", "weather ", "is n", "ice tod", "ay"]:
        length += len(piece)
        assert scanner.push(piece).settled == length
    assert scanner.push(" bo").settled == length + 1


async def test_the_check_gives_a_verdict_for_each_passage_with_a_phrase() -> None:
    check = PhraseCheck(automaton(), Action.REDACT)
    texts = ["harmless", "x " * 9000 + "a b o m b!", "🍆"]

    verdicts = await check.check([Passage(text, Origin.USER) for text in texts])

    assert [verdict.passage for verdict in verdicts] == [1, 2]
    assert [verdict.action for verdict in verdicts] == [Action.REDACT] * 2
    assert texts[1][verdicts[0].spans[0].start : verdicts[0].spans[0].end] == "b o m b"
    assert verdicts[0].version == automaton().version != automaton(["other"]).version


async def test_a_megabyte_does_not_stall_the_event_loop() -> None:
    check = PhraseCheck(automaton())
    longest, running = 0.0, True

    async def watch() -> None:
        nonlocal longest
        while running:
            before = time.thread_time()  # other processes do not count
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    watcher = asyncio.create_task(watch())
    await check.check([Passage("skill, class 炸 b-o-m " * 55_000, Origin.USER)])
    running = False
    await watcher

    assert longest < 0.1  # of the processor's time; about 10 ms
