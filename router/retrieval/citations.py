"""``citations``: finds the passages that an answer refers to, and the characters of the answer that do. Pure.

The model is asked to write the number of a passage in brackets. A number without a passage is no citation. Where the
answer has no citation by number, its sentences are compared with those of the passages: a sentence that shares enough
of its words, and all of its numbers, with a sentence of a passage cites that passage.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from router.documents import Citation, CitedBy, ContextPassage
from router.retrieval.index_terms import terms
from router.retrieval.sentence_splitting import Offsets, sentences

MARKER = re.compile(r"[\[【](?:passage )?(\d{1,3}(?:[,;]\s?\d{1,3}){0,15})[\]】](?!\()", re.IGNORECASE)
CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`", re.DOTALL)
MIN_OVERLAP = 0.6  # of a sentence's terms that its source must have
MIN_COMMON = 3  # different terms that a sentence and its source have in common
MIN_NARROWED = 0.3  # the same share, from which on a marker refers to one sentence of its passage, and not to all of it
MAX_CITATIONS = 256  # of an answer
MAX_SENTENCES = 512  # of an answer that are compared


class _Sentence(NamedTuple):
    passage: ContextPassage
    start: int  # in the document
    end: int
    terms: frozenset[str]


def citations(answer: str, passages: Sequence[ContextPassage]) -> list[Citation]:
    """Returns the citations of ``answer``, in the order of its text, at most MAX_CITATIONS: those by its markers such
    as [1], or, if it has no markers, those of sentences that share words with a passage."""
    citable = {passage.number: passage for passage in passages if passage.citable}
    code = [match.span() for match in CODE.finditer(answer)]
    marked = list(islice(_by_markers(answer, citable, code), MAX_CITATIONS))
    return marked or list(islice(_by_overlap(answer, list(citable.values()), code), MAX_CITATIONS))


def _by_markers(answer: str, passages: dict[int, ContextPassage], code: Sequence[Offsets]) -> Iterator[Citation]:
    spans = sentences(answer)
    sources: dict[int, list[_Sentence]] = {}  # by passage: an answer may name one hundreds of times
    for match in MARKER.finditer(answer):
        numbers = [each for each in dict.fromkeys(map(int, re.findall(r"\d+", match[1]))) if each in passages]
        if not numbers or _within(match.start(), code):
            continue
        sentence = _terms_before(answer, spans, match)
        for number in numbers:
            passage = passages[number]
            if number not in sources:
                sources[number] = list(_sentences_of(passage))
            best, score = _closest(sentence, sources[number])
            if best is None or score < MIN_NARROWED:
                yield Citation(*match.span(), passage, passage.start, passage.end, CitedBy.MARKER, round(score, 3))
            else:
                yield Citation(*match.span(), passage, best.start, best.end, CitedBy.MARKER, round(score, 3))


def _terms_before(answer: str, spans: Sequence[Offsets], match: re.Match[str]) -> frozenset[str]:
    """Returns the terms of the sentence that a marker belongs to: the one that has it, or the one before it where only
    markers follow the full stop."""
    terms_of = [
        _content(answer[start:end])
        for start, end in spans
        if start < match.end() and start > match.start() - 2000  # sentences further off cannot be meant
    ]
    return next((found for found in reversed(terms_of) if found), frozenset())


def _by_overlap(answer: str, passages: Sequence[ContextPassage], code: Sequence[Offsets]) -> Iterator[Citation]:
    sources = [each for passage in passages for each in _sentences_of(passage)]
    for start, end in sentences(answer)[:MAX_SENTENCES]:
        if _within(start, code):
            continue
        said = _content(answer[start:end])
        numbers = {term for term in said if term.isdigit()}
        able = [source for source in sources if numbers <= source.terms and len(said & source.terms) >= MIN_COMMON]
        best, score = _closest(said, able)
        if best is not None and score >= MIN_OVERLAP:
            yield Citation(start, end, best.passage, best.start, best.end, CitedBy.OVERLAP, round(score, 3))


def _sentences_of(passage: ContextPassage) -> Iterator[_Sentence]:
    for start, end in sentences(passage.text):
        yield _Sentence(passage, passage.start + start, passage.start + end, _content(passage.text[start:end]))


def _closest(said: frozenset[str], sources: Sequence[_Sentence]) -> tuple[_Sentence | None, float]:
    """Returns the source that has most of the terms of ``said``, the shortest of equals, and its share."""
    if not said or not sources:
        return None, 0.0
    best = max(sources, key=lambda source: (len(said & source.terms), -len(source.terms)))
    return best, len(said & best.terms) / len(said)


def _content(text: str) -> frozenset[str]:
    """Returns the different terms of ``text``, without markers."""
    return frozenset(terms(MARKER.sub(" ", text)))


def _within(place: int, spans: Sequence[Offsets]) -> bool:
    """Returns whether ``place`` is in one of ``spans``, which are in order: an answer may have thousands of them."""
    before = bisect_right(spans, place, key=lambda span: span[0])
    return before > 0 and place < spans[before - 1][1]
