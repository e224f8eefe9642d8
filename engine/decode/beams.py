"""Beam search: extends the most probable hypotheses side by side, and keeps the best finished answers.

The rules are those of ``generate`` in transformers 5, so that sequences and scores are equal. The candidates of a step
are the most probable tokens after all live hypotheses together, by the sum of log probabilities. Only the first
``width`` candidates may end an answer; the best ``width`` of the others become the next live hypotheses. Beam sampling
draws the candidates without replacement, as the largest sums of log probability and Gumbel noise (Kool et al. 2019).

Pure: the caller supplies the candidates, and KV blocks are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.api import BeamSearch, FinishReason, UnsatisfiableError
from engine.decode.logprobs import RowScorer, Scored
from engine.decode.random import gumbel
from engine.decode.sampling import Draw, cut


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens that may follow one hypothesis, best first. ``tokens`` [n] int64. ``logprobs`` [n] float64 are their
    log probabilities after rules, temperature and cuts. ``ranks`` [n] float64 are the numbers by which they are
    ordered: the log probabilities, with Gumbel noise added if candidates are drawn."""

    tokens: Tensor
    logprobs: Tensor
    ranks: Tensor
    scorer: RowScorer | None = None  # set if the request wants log probabilities


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate: ``token`` after the live hypothesis at the index ``parent``. ``total`` is the sum of the log
    probabilities of the hypothesis and this token."""

    parent: int
    token: int
    total: float


@dataclass(slots=True)
class Hypothesis:
    """An unfinished answer. ``total`` is the sum of its tokens' log probabilities. ``scored`` has the log probabilities
    of each token, None for each if the request wants none."""

    tokens: list[int] = field(default_factory=list)
    total: float = 0.0
    scored: list[Scored | None] = field(default_factory=list)

    def longer(self, candidate: Candidate, scorer: RowScorer | None) -> Hypothesis:
        """Returns the hypothesis with the token of ``candidate`` appended."""
        scored = None if scorer is None else scorer.score(candidate.token)
        return Hypothesis([*self.tokens, candidate.token], candidate.total, [*self.scored, scored])


@dataclass(frozen=True, slots=True)
class FinishedHypothesis:
    """A finished answer. Its score is ``total`` divided by (tokens ** length_penalty)."""

    hypothesis: Hypothesis
    score: float
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Step:
    """The origin of a new live hypothesis: ``token`` appended to the hypothesis at the index ``parent``."""

    parent: int
    token: int


Ends = Callable[[int, int], FinishReason | None]
"""Returns why a token ends the live hypothesis at a place, or None if it does not. Raises UnsatisfiableError if the
grammar does not allow it."""


class Beams:
    """The state of one beam search. ``candidates`` is the number of candidates in a step, ``max_tokens`` the longest
    answer."""

    def __init__(self, search: BeamSearch, candidates: int, max_tokens: int) -> None:
        self._search = search
        self._candidates = candidates
        self._max_tokens = max_tokens
        self.live = [Hypothesis()]  # best first; empty when the search is over
        self.finished: list[FinishedHypothesis] = []  # best first

    def advance(self, rows: Sequence[Candidates], ends: Ends) -> list[Step]:
        """Takes one step. ``rows`` has the candidates after each live hypothesis, at most ``candidates`` each. Returns
        the origins of the new live hypotheses, best first; empty if the search is over."""
        length = len(self.live[0].tokens) + 1
        ended, going = self._parted(self._likeliest(rows), length, ends)
        scorers = [row.scorer for row in rows]
        if not (self._search.early_stopping is True and len(self.finished) >= self._search.width):
            for candidate, reason in ended:
                whole = self.live[candidate.parent].longer(candidate, scorers[candidate.parent])
                self.finished.append(FinishedHypothesis(whole, self._score(whole.total, length), reason))
            self.finished.sort(key=lambda whole: -whole.score)
            del self.finished[self._search.width :]
        self.live = [self.live[one.parent].longer(one, scorers[one.parent]) for one in going]
        if self._over(length):
            self.live = []
        return [Step(one.parent, one.token) for one in going] if self.live else []

    def _likeliest(self, rows: Sequence[Candidates]) -> list[Candidate]:
        """Returns the best candidates over all hypotheses."""
        pairs = list(zip(rows, self.live, strict=True))
        totals = torch.cat([row.logprobs + beam.total for row, beam in pairs])
        ranks = torch.cat([row.ranks + beam.total for row, beam in pairs])
        parents = [place for place, row in enumerate(rows) for _ in range(len(row.tokens))]
        tokens = torch.cat([row.tokens for row in rows])
        best = ranks.sort(descending=True, stable=True).indices[: self._candidates]
        found = zip(best.tolist(), tokens[best].tolist(), totals[best].tolist(), strict=True)
        return [Candidate(parents[at], token, total) for at, token, total in found]

    def _parted(
        self, found: Sequence[Candidate], length: int, ends: Ends
    ) -> tuple[list[tuple[Candidate, FinishReason]], list[Candidate]]:
        """Returns the candidates that end an answer, among the first ``width``, and the best ``width`` of those that do
        not. Candidates that the grammar does not allow are left out."""
        width, ended, going = self._search.width, list[tuple[Candidate, FinishReason]](), list[Candidate]()
        for place, candidate in enumerate(found):
            if place >= width and len(going) >= width and not self._search.do_sample:
                break  # all further candidates have a lower total
            try:
                reason = ends(candidate.parent, candidate.token)
            except UnsatisfiableError:
                continue
            if reason is None and length >= self._max_tokens:
                reason = FinishReason.LENGTH
            if reason is None:
                going.append(candidate)
            elif place < width:
                ended.append((candidate, reason))
        going.sort(key=lambda one: -one.total)
        return ended, going[:width]

    def _score(self, total: float, tokens: int) -> float:
        """Returns the score of an answer of ``tokens`` tokens."""
        return float(total / tokens**self._search.length_penalty)

    def _over(self, length: int) -> bool:
        """Returns whether the search is over: no hypothesis is live, or by ``early_stopping`` none needs to be
        continued."""
        if not self.live:
            return True
        if len(self.finished) < self._search.width:
            return False
        if self._search.early_stopping is True:
            return True
        longest = self._search.early_stopping == "never" and self._search.length_penalty > 0
        best = self._score(self.live[0].total, self._max_tokens if longest else length)
        return best <= self.finished[-1].score


@torch.inference_mode()
def normalise(logits: Tensor, rows: Sequence[int]) -> None:
    """Replaces the given rows of ``logits`` [rows, vocab] float32 by log probabilities, in place."""
    if rows:
        index = torch.tensor(list(rows), device=logits.device)
        logits[index] = logits[index].log_softmax(-1)


@torch.inference_mode()
def candidates(logits: Tensor, draws: Sequence[Draw], scorers: Sequence[RowScorer | None]) -> list[Candidates]:
    """Returns the best candidates of each row, as many as its draw asks for, or fewer. ``logits`` [rows, vocab] float32
    are log probabilities after rules and grammars; tokens with -inf are no candidates."""
    logits = _drawn_from(logits, draws)
    ranks = _ranks(logits, draws)
    width = min(max(draw.candidates for draw in draws), logits.shape[1])
    top, tokens = ranks.topk(width)
    probabilities = logits.gather(1, tokens)
    found: list[Candidates] = []
    for row, (draw, scorer) in enumerate(zip(draws, scorers, strict=True)):
        some = slice(min(draw.candidates, int(probabilities[row].isfinite().sum())))
        own, ranked = probabilities[row, some].double(), top[row, some].double()
        found.append(Candidates(tokens[row, some], own, ranked, scorer))
    return found


def no_candidates() -> Candidates:
    """Returns the candidates of a hypothesis that no token can follow: none."""
    none = torch.empty(0, dtype=torch.float64)
    return Candidates(torch.empty(0, dtype=torch.int64), none, none)


def _drawn_from(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Applies temperature and cuts to the rows of beam sampling. A cut leaves each hypothesis at least its share of the
    candidates, since otherwise all that is left might end an answer."""
    shares: dict[int, list[int]] = {}
    for row, draw in enumerate(draws):
        if draw.params.beam is not None and draw.params.beam.do_sample:
            shares.setdefault(draw.candidates // draw.params.beam.width, []).append(row)
    for share, rows in shares.items():
        index = torch.tensor(rows, device=logits.device)
        logits = logits.index_copy(0, index, cut(logits[index], [draws[row].params for row in rows], least=share))
    return logits


def _ranks(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Returns what candidates are ordered by: ``logits``, with Gumbel noise added in the rows of beam sampling."""
    rows = [row for row, draw in enumerate(draws) if draw.params.beam is not None and draw.params.beam.do_sample]
    if not rows:
        return logits
    tokens = torch.arange(logits.shape[1], device=logits.device).unsqueeze(0)
    noise = gumbel([draws[row].seed for row in rows], [draws[row].position for row in rows], tokens)
    return logits.index_add(0, torch.tensor(rows, device=logits.device), noise)
