"""An answer that repeats the system prompt is found, in whatever pieces and form; other answers are not held back."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.leak.canary import CANARY, canary, canary_scanner, marked
from safety.leak.prompt_index import PromptIndex
from safety.leak.scanner import LEAD, LEAKED, MAX_EXTENT, NGRAM, LeakScanner
from safety.leak.words import WordReader
from safety.phrases.letters import MAX_IGNORED
from tests.safety.streams import CUTS, assert_scans_in_pieces, pieces_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
KEY = b"0123456789abcdef"
PROMPT = (
    "You are Harbour, the assistant of Northwind Shipping. Never quote prices below the tariff of 2026. "
    "Escalate every complaint about damaged containers to the claims desk in Rotterdam, and do not mention strikes."
)
INDEX = PromptIndex(PROMPT)


def leaked(answer: str, user: str = "") -> str:
    scanner = LeakScanner(INDEX, user)
    return "".join(answer[span.start : span.end] for span in scanner.push(answer, final=True).found)


# Canary


def test_a_canary_belongs_to_its_key_and_scope() -> None:
    assert canary(KEY, "request-1") == canary(KEY, "request-1")
    assert len({canary(KEY, "request-1"), canary(KEY, "request-2"), canary(KEY * 2, "request-1")}) == 3
    assert canary(KEY, "request-1").isalnum()
    assert marked(PROMPT, canary(KEY, "a")).startswith(PROMPT)
    with pytest.raises(ValueError, match="16 bytes"):
        canary(b"short", "a")


@pytest.mark.parametrize(
    "form",
    ["{}", "the code is {}.", "x{}y", "**{}**", "_{}_", "0{}0"],
)
@settings(max_examples=30)
@given(cuts=CUTS)
def test_a_canary_is_found_in_any_pieces(form: str, cuts: list[int]) -> None:
    token = canary(KEY, "request-1")
    text = form.format(token)

    spans = assert_scans_in_pieces(lambda: canary_scanner(token), pieces_of(text, cuts), 4 * 16 + 64 + MAX_IGNORED)

    assert [(text[span.start : span.end], span.kind) for span in spans] == [(token, CANARY)]


@pytest.mark.parametrize("disguise", [str.upper, " ".join, "-".join, "\u200b".join])
def test_a_canary_is_found_in_disguise(disguise: Callable[[str], str]) -> None:
    token = canary(KEY, "request-1")

    assert canary_scanner(token).push(f"It is {disguise(token)}!", final=True).found


def test_the_canary_of_another_request_is_not_found() -> None:
    assert not canary_scanner(canary(KEY, "a")).push(f"It is {canary(KEY, 'b')}.", final=True).found


# Runs of words


@pytest.mark.parametrize(
    "answer",
    [
        PROMPT,
        "Sure! My instructions: " + PROMPT,
        PROMPT.upper(),
        "- " + PROMPT.replace(". ", "\n- **").replace(" the ", " _the_ "),
        " ".join(f"`{word}`" for word in PROMPT.split()),
        "> " + PROMPT.replace(" ", "\n> "),
        "they say to escalate every complaint about damaged containers to the claims desk, so",
    ],
)
def test_a_repeated_prompt_is_found_in_any_form(answer: str) -> None:
    assert "damaged" in leaked(answer).lower()


@pytest.mark.parametrize(
    "answer",
    [
        "Every complaint about damaged containers goes to Rotterdam.",
        "I am Harbour, the assistant of Northwind Shipping.",
        "Never quote prices; escalate to the claims desk.",
        "",
    ],
)
def test_short_common_phrases_are_no_leak(answer: str) -> None:
    assert leaked(answer) == ""


def test_the_span_begins_behind_the_lead_and_ends_with_the_run() -> None:
    run = " ".join(PROMPT.split()[10:24])

    assert leaked(f"Well, {run} yes") == " ".join(run.split()[LEAD:])


def test_what_the_user_wrote_is_no_leak() -> None:
    quoted = "Never quote prices below the tariff of 2026. Escalate every complaint"

    assert leaked(f"You wrote: {quoted}", user=f"What does '{quoted}' mean?") == ""
    assert "damaged" in leaked(f"{quoted} about damaged containers to the claims desk", user=quoted)


def test_a_run_of_common_words_is_no_leak() -> None:
    text = "if you do not know then say that you do not know what it is and you will try again"

    assert not LeakScanner(PromptIndex(text)).push(text, final=True).found


def test_scripts_without_spaces_are_compared_by_letters() -> None:
    prompt = "你是北风航运公司的客服助手，绝对不要透露低于二零二六年运价表的价格。"
    scanner = LeakScanner(PromptIndex(prompt))

    assert scanner.push("我的指示是：绝对不要透露低于二零二六年运价表的价格", final=True).found
    assert not LeakScanner(PromptIndex(prompt)).push("我是北风航运公司的客服", final=True).found


VOCABULARY = ["the", "red", "Blue", "green", "cat", "dog", "炸", "弹", "a-b", "é"]
TEXTS = st.lists(st.sampled_from(VOCABULARY), max_size=40).map(" ".join)


@given(TEXTS, st.data(), CUTS, TEXTS)
def test_the_scanner_finds_the_runs_that_a_search_finds(
    prompt: str, data: st.DataObject, cuts: list[int], user: str
) -> None:
    start = data.draw(st.integers(0, len(prompt)))
    answer = data.draw(TEXTS) + " " + prompt[start:] + data.draw(TEXTS)
    index = PromptIndex(prompt)

    spans = assert_scans_in_pieces(lambda: LeakScanner(index, user), pieces_of(answer, cuts), MAX_EXTENT)

    found = {span.end for span in spans}
    assert found == search(prompt, answer, user)
    assert all(span.kind == LEAKED for span in spans)


def search(prompt: str, answer: str, user: str) -> set[int]:
    """The ends of words that end a run of NGRAM words, by comparing every run with every place."""
    words = WordReader().push(answer, final=True)
    texts = [word.text for word in words]
    ends = set()
    for end in range(1, len(words) + 1):
        start = end
        while start and sum(word.weight for word in words[start:end]) < 2 * NGRAM:
            start -= 1
        run = texts[start:end]
        enough = sum(word.weight for word in words[start:end]) >= 2 * NGRAM and len(set(run) - {"the", "a"}) > 1
        if enough and stands_in(run, prompt) and not stands_in(run, user):
            ends.add(words[end - 1].end)
    return ends


def stands_in(run: list[str], text: str) -> bool:
    texts = [word.text for word in WordReader().push(text, final=True)]
    return any(texts[place : place + len(run)] == run for place in range(len(texts)))


@pytest.mark.parametrize("filler", ["\u200b", " ", "a", "\u0301", "- "])
def test_hold_back_is_bounded_however_much_filler_follows(filler: str) -> None:
    words = PROMPT.split()
    pieces = [" ".join(words[:7]), *[filler] * 2000, " ".join(words[7:])]

    assert_scans_in_pieces(lambda: LeakScanner(INDEX), pieces, MAX_EXTENT)


def test_ordinary_text_is_not_held_back() -> None:
    scanner, length = LeakScanner(INDEX), 0
    for piece in ["The assistant ", "of the harb", "our quotes ", "every price to the ", "parcels", " desk."]:
        length += len(piece)
        assert scanner.push(piece).settled == length


def test_an_index_takes_linear_time() -> None:
    text = " ".join(f"w{number % 977} and the {number % 13}" for number in range(1500))
    start = time.thread_time()
    index = PromptIndex(text)
    LeakScanner(index).push(text, final=True)

    assert time.thread_time() - start < 5  # about 0.2 s


@pytest.mark.skipif(not DATA.exists(), reason="the public data sets are not beside the repository")
def test_other_texts_are_no_leak_of_long_prompts() -> None:
    with gzip.open(DATA / "benign" / "role_prompts.jsonl.gz", "rt", encoding="utf-8") as lines:
        prompts = [str(json.loads(line)["text"]) for line in lines]
    with gzip.open(DATA / "eval" / "gsm8k_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        answers = [str(json.loads(line)["answer"]) for line in lines][:80]
    index = PromptIndex("\n".join(prompts))

    assert not [answer for answer in answers if LeakScanner(index).push(answer, final=True).found]
