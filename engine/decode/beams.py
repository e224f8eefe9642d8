"""Beam search: the likeliest beginnings of an answer, made longer side by side, and the best finished among them.

The rules are those of transformers' ``generate`` (5.x), so that sequences and scores are the same: candidates are the
likeliest tokens after all live hypotheses together, by the sum of log probabilities; only the first ``width`` of them
may end, and the best of those that go on live. Beam sampling draws the candidates without replacement (the largest of
log probabilities plus Gumbel noise: Kool et al. 2019), and then goes on as before.

Pure: which tokens follow is asked of nobody here, and no block is known.
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
    """Tokens that may come next after one hypothesis, best first: ``tokens`` [n] int64, the natural logarithms of their
    probabilities after rules, temperature and cuts, and what they are ranked by among all, which is the same but where
    candidates are drawn, both [n] float64."""

    tokens: Tensor
    logprobs: Tensor
    ranks: Tensor
    scorer: RowScorer | None = None  # where log probabilities are told


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of them: ``parent`` is the place of its hypothesis, ``total`` the sum with all tokens before."""

    parent: int
    token: int
    total: float


@dataclass(slots=True)
class Hypothesis:
    """The beginning of an answer. ``total`` is the sum of its tokens' log probabilities."""

    tokens: list[int] = field(default_factory=list)
    total: float = 0.0
    scored: list[Scored | None] = field(default_factory=list)

    def longer(self, candidate: Candidate, scorer: RowScorer | None) -> Hypothesis:
        """With one more token."""
        scored = None if scorer is None else scorer.score(candidate.token)
        return Hypothesis([*self.tokens, candidate.token], candidate.total, [*self.scored, scored])


@dataclass(frozen=True, slots=True)
class FinishedHypothesis:
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
        self.finished: list[FinishedHypothesis] = []  # best first

    def advance(self, rows: Sequence[Candidates], ends: Ends) -> list[Step]:
        """One token more: ``rows`` has the candidates after each live hypothesis, at least as many as are looked at in
        all, or all that there are. Where the new live ones come from, best first; none: the search is over."""
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
        """Of all rows together."""
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
        """Of the likeliest ``width`` those that end, and of all others the best ``width`` that go on. What cannot be
        continued by its grammar is no candidate."""
        width, ended, going = self._search.width, list[tuple[Candidate, FinishReason]](), list[Candidate]()
        for place, candidate in enumerate(found):
            if place >= width and len(going) >= width and not self._search.do_sample:
                break  # what follows is less likely
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
        return float(total / tokens**self._search.length_penalty)

    def _over(self, length: int) -> bool:
        """Whether nothing better is to be had, or looked for."""
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
    """Makes these rows of ``logits`` [rows, vocab] float32 log probabilities."""
    if rows:
        index = torch.tensor(list(rows), device=logits.device)
        logits[index] = logits[index].log_softmax(-1)


@torch.inference_mode()
def candidates(logits: Tensor, draws: Sequence[Draw], scorers: Sequence[RowScorer | None]) -> list[Candidates]:
    """The candidates of each row, as many as its draw says or fewer. ``logits`` [rows, vocab] float32 are log
    probabilities that rules and grammars have changed; -inf is no candidate."""
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
    """Of a hypothesis that cannot be continued."""
    none = torch.empty(0, dtype=torch.float64)
    return Candidates(torch.empty(0, dtype=torch.int64), none, none)


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
