"""Packing: chooses the passages that fit into a budget of tokens, and their order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from router.documents import CONTEXT_HEAD, ContextPassage, PassageOrder, Source, rendered
from router.retrieval.token_estimate import estimated_tokens

MARKS_TOKENS = 16  # for the marks around a passage, beside its title and heading
HEAD_TOKENS = estimated_tokens(CONTEXT_HEAD)


class Candidate(NamedTuple):
    """A chunk that may be packed. ``place`` is the index of its document. ``text`` is the slice ``[start, end)`` of the
    document's text. ``rank`` is its rank among the candidates of all sources: scores of two of them cannot be
    compared."""

    source: Source
    start: int
    end: int
    text: str
    heading: str
    score: float
    place: int
    rank: int = 0


class Packed(NamedTuple):
    """The packed passages in the order of the context, and their estimated ``tokens``. ``chunks`` is the number of
    candidates in them, ``left_out`` that of candidates without room."""

    passages: tuple[ContextPassage, ...]
    tokens: int
    chunks: int
    left_out: int


def max_prompt_tokens(budget_tokens: int) -> int:
    """Returns the most tokens, by the estimate of prompts, that the message with packed passages has: its marks may be
    made longer where a text has such marks itself, by a byte in eight."""
    return budget_tokens * 9 // 8 + MARKS_TOKENS


def packed(
    candidates: Sequence[Candidate], top_k: int, budget_tokens: int, order: PassageOrder, *, complete: bool
) -> Packed:
    """Returns the passages for a context of ``budget_tokens`` at most, by estimate.

    ``candidates`` come in the order of preference. A candidate that is too long for the rest of the budget is passed
    over, and a shorter one after it may still be packed. Chunks of a document that touch become one passage.
    ``complete``: the candidates are all chunks that exist, so that all of them may be packed in document order. At most
    ``top_k`` candidates are packed. ``order`` is the order of the passages.
    """
    chosen: list[Candidate] = []
    tokens = HEAD_TOKENS
    for candidate in candidates:
        cost = _cost(candidate)
        if len(chosen) < top_k and tokens + cost <= budget_tokens:
            chosen.append(candidate)
            tokens += cost
    left_out = len(candidates) - len(chosen)
    whole = complete and not left_out
    by_document = order is PassageOrder.DOCUMENT or (order is PassageOrder.AUTO and whole)
    merged = _merged(chosen)
    placed = sorted(merged, key=_in_document) if by_document else best_at_ends(merged)
    passages = tuple(replace(_passage(each), number=number) for number, each in enumerate(placed, 1))
    return Packed(passages, estimated_tokens(rendered(passages)), len(chosen), left_out)


def best_at_ends(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns ``candidates`` with the best at the end, the second best at the beginning, and so on inwards: models use
    the middle of a long context least (Liu et al., "Lost in the Middle", 2023)."""
    ranked = sorted(candidates, key=lambda each: (each.rank, -each.score, *_in_document(each)))
    ends, beginnings = ranked[::2], ranked[1::2]
    return [*beginnings, *reversed(ends)]


def _cost(candidate: Candidate) -> int:
    return MARKS_TOKENS + sum(map(estimated_tokens, (candidate.text, candidate.source.title, candidate.heading)))


def _in_document(candidate: Candidate) -> tuple[int, str, int]:
    return candidate.place, candidate.source.field, candidate.start


def _merged(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns ``candidates`` with those joined that overlap or follow each other in one document."""
    found: list[Candidate] = []
    for _, group in groupby(sorted(candidates, key=_in_document), key=lambda each: (each.place, each.source)):
        current: Candidate | None = None
        for each in group:
            if current is not None and each.start <= current.end:
                text = current.text + each.text[max(0, current.end - each.start) :]
                end = max(current.end, each.end)
                score, rank = max(current.score, each.score), min(current.rank, each.rank)
                current = current._replace(text=text, end=end, score=score, rank=rank)
            else:
                found += [] if current is None else [current]
                current = each
        found += [] if current is None else [current]
    return found


def _passage(each: Candidate) -> ContextPassage:
    label = " > ".join(part for part in (each.source.title, each.heading) if part)
    return ContextPassage(0, each.source, each.start, each.end, each.text, label, round(each.score, 6))
