"""Beam search: the likeliest beginnings of an answer, made longer side by side, and the best wholes among them.

The rules are those of transformers' ``generate`` (5.x), so that sequences and scores are the same: candidates are the
likeliest tokens after all live hypotheses together, by the sum of log probabilities; only the first ``width`` of them
may end, and the best of those that go on live. Beam sampling draws the candidates without replacement (the largest of
log probabilities plus Gumbel noise: Kool et al. 2019), and then goes on as before.

Pure: which tokens follow is asked of nobody here, and no block is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.api import BeamSearch, FinishReason
from engine.decode.logprobs import Scored
from engine.decode.random import gumbel
from engine.decode.sampling import Draw, cut


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that may come next: the natural logarithm of its probability after rules, temperature and cuts, and what
    it is ranked by among all, which is the same but where candidates are drawn."""

    token: int
    logprob: float
    rank: float
    scored: Scored | None = None


@dataclass(slots=True)
class Hypothesis:
    """The beginning of an answer. ``total`` is the sum of its tokens' log probabilities."""

    tokens: list[int] = field(default_factory=list)
    total: float = 0.0
    scored: list[Scored | None] = field(default_factory=list)

    def longer(self, candidate: Candidate) -> Hypothesis:
        """With one more token."""
        return Hypothesis(
            [*self.tokens, candidate.token], self.total + candidate.logprob, [*self.scored, candidate.scored]
        )


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that has ended, and its score: ``total`` over (tokens ** length_penalty)."""

    hypothesis: Hypothesis
    score: float
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Step:
    """How a live hypothesis came about: from which of those before, and its new token."""

    parent: int
    token: int


Ends = Callable[[int, int], FinishReason | None]
"""Whether a token ends the live hypothesis of that place."""


class Beams:
    """One search. ``candidates`` is how many are looked at in a step, ``max_tokens`` how long an answer may be."""

    def __init__(self, search: BeamSearch, candidates: int, max_tokens: int) -> None:
        self._search = search
        self._candidates = candidates
        self._max_tokens = max_tokens
        self.live = [Hypothesis()]  # best first; empty when the search is over
        self.wholes: list[Whole] = []  # best first

    def advance(self, rows: Sequence[Sequence[Candidate]], ends: Ends) -> list[Step]:
        """One token more: ``rows`` has the candidates after each live hypothesis, at least as many as are looked at in
        all, or all that there are. Where the new live ones come from, best first; none: the search is over."""
        length = len(self.live[0].tokens) + 1
        found = self._likeliest(rows)
        reasons = [self._reason(parent, candidate, length, ends) for parent, candidate in found]
        self._end(found, reasons)
        going = [one for one, reason in zip(found, reasons, strict=True) if reason is None]
        going.sort(key=lambda one: -self._total(*one))
        going = going[: self._search.width]
        self.live = [self.live[parent].longer(candidate) for parent, candidate in going]
        if self._over(length):
            self.live = []
        return [Step(parent, candidate.token) for parent, candidate in going] if self.live else []

    def _total(self, parent: int, candidate: Candidate) -> float:
        return self.live[parent].total + candidate.logprob

    def _likeliest(self, rows: Sequence[Sequence[Candidate]]) -> list[tuple[int, Candidate]]:
        """Of all rows together, by place of their hypotheses."""
        every = [(parent, candidate) for parent, row in enumerate(rows) for candidate in row]
        every.sort(key=lambda one: -(self.live[one[0]].total + one[1].rank))
        return every[: self._candidates]

    def _reason(self, parent: int, candidate: Candidate, length: int, ends: Ends) -> FinishReason | None:
        reason = ends(parent, candidate.token)
        return FinishReason.LENGTH if reason is None and length >= self._max_tokens else reason

    def _end(self, found: Sequence[tuple[int, Candidate]], reasons: Sequence[FinishReason | None]) -> None:
        """Keeps the best of what has ended, unless it is full and wants no better."""
        if self._search.early_stopping is True and len(self.wholes) >= self._search.width:
            return
        for (parent, candidate), reason in list(zip(found, reasons, strict=True))[: self._search.width]:
            if reason is not None:
                whole = self.live[parent].longer(candidate)
                self.wholes.append(Whole(whole, self._score(whole.total, len(whole.tokens)), reason))
        self.wholes.sort(key=lambda whole: -whole.score)
        del self.wholes[self._search.width :]

    def _score(self, total: float, tokens: int) -> float:
        return float(total / tokens**self._search.length_penalty)

    def _over(self, length: int) -> bool:
        """Whether nothing better is to be had, or looked for."""
        if not self.live:
            return True
        if len(self.wholes) < self._search.width:
            return False
        if self._search.early_stopping is True:
            return True
        longest = self._search.early_stopping == "never" and self._search.length_penalty > 0
        best = self._score(self.live[0].total, self._max_tokens if longest else length)
        return best <= self.wholes[-1].score


@torch.inference_mode()
def normalise(logits: Tensor, rows: Sequence[int]) -> None:
    """Makes these rows of ``logits`` [rows, vocab] float32 log probabilities."""
    if rows:
        index = torch.tensor(list(rows), device=logits.device)
        logits[index] = logits[index].log_softmax(-1)


@torch.inference_mode()
def candidates(logits: Tensor, draws: Sequence[Draw]) -> list[list[Candidate]]:
    """The candidates of each row, best first, as many as its draw says or fewer. ``logits`` [rows, vocab] float32 are
    log probabilities that rules and grammars have changed; -inf is no candidate."""
    logits = _drawn_from(logits, draws)
    ranks = _ranks(logits, draws)
    width = min(max(draw.candidates for draw in draws), logits.shape[1])
    top, tokens = ranks.topk(width)
    rows = zip(draws, tokens.tolist(), logits.gather(1, tokens).tolist(), top.tolist(), strict=True)
    return [
        [Candidate(*one) for one in list(zip(*row, strict=True))[: draw.candidates] if one[1] > -math.inf]
        for draw, *row in rows
    ]


def _drawn_from(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """After temperature and cuts where candidates are drawn. As many stay as one hypothesis has a share of candidates:
    else all that is left of it might end."""
    shares: dict[int, list[int]] = {}
    for row, draw in enumerate(draws):
        if draw.params.beam is not None and draw.params.beam.do_sample:
            shares.setdefault(draw.candidates // draw.params.beam.width, []).append(row)
    for share, rows in shares.items():
        index = torch.tensor(rows, device=logits.device)
        logits = logits.index_copy(0, index, cut(logits[index], [draws[row].params for row in rows], least=share))
    return logits


def _ranks(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    rows = [row for row, draw in enumerate(draws) if draw.params.beam is not None and draw.params.beam.do_sample]
    if not rows:
        return logits
    tokens = torch.arange(logits.shape[1], device=logits.device).unsqueeze(0)
    noise = gumbel([draws[row].seed for row in rows], [draws[row].position for row in rows], tokens)
    return logits.index_add(0, torch.tensor(rows, device=logits.device), noise)
