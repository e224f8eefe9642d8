"""Log probabilities of sampled tokens and of the most probable tokens beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decode.sampling import Draw, cut


@dataclass(frozen=True, slots=True)
class Scored:
    """Log probabilities at one position: that of the token, those of the most probable tokens with their ids, and the
    token's rank among all, from 1. Natural logarithms."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    rank: int


class LogprobRecorder:
    """Computes the log probabilities of one step. Keeps the logits as they are before rules (raw), or after rules,
    temperature and cuts (processed), as each request asks."""

    def __init__(self, logits: Tensor, draws: Sequence[Draw]) -> None:
        """Copies the rows of ``logits`` [rows, vocab] float32 whose draws want log probabilities, one draw per row."""
        rows = [row for row, draw in enumerate(draws) if draw.params.records_logprobs]
        self._places = {row: place for place, row in enumerate(rows)}
        self._params = [draws[row].params for row in rows]
        self._logits = logits[rows] if rows else None

    def constrained(self, logits: Tensor) -> None:
        """Takes ``logits`` [rows, vocab] float32 after rules and grammars, for requests that want processed log
        probabilities: temperature and cuts are applied to a copy, which takes the place of the raw logits.

        The rows are those of the constructor. To be called before a scorer is asked for.
        """
        changed = [row for row, at in self._places.items() if self._params[at].logprobs_mode == "processed"]
        if self._logits is not None and changed:
            places = [self._places[row] for row in changed]
            self._logits[places] = cut(logits[changed], [self._params[at] for at in places])

    def scorer(self, row: int) -> RowScorer | None:
        """Returns a scorer for tokens of this row, or None if its request wants no log probabilities."""
        at = self._places.get(row)
        if at is None or self._logits is None:
            return None
        return RowScorer(self._logits[at], self._params[at].logprobs or 0)

    def scores(self, rows: Sequence[int], tokens: Sequence[int]) -> dict[int, Scored]:
        """Returns the log probabilities of ``tokens``, drawn from ``rows``, by place in ``tokens``. Places whose
        requests want none are absent."""
        asked = [place for place, row in enumerate(rows) if row in self._places]
        if self._logits is None or not asked:
            return {}
        counts = [params.logprobs or 0 for params in self._params]
        found = score(self._logits, [self._places[rows[at]] for at in asked], [tokens[at] for at in asked], counts)
        return dict(zip(asked, found, strict=True))


class RowScorer:
    """Computes log probabilities of single tokens of one row on demand. A beam search has many candidates, of which few
    are kept."""

    def __init__(self, logits: Tensor, count: int) -> None:
        """``logits`` [vocab] float32. ``count`` is the number of most probable tokens in each result."""
        self._logits = logits
        self._count = count

    def score(self, token: int) -> Scored:
        """Returns the log probabilities of ``token``."""
        return score(self._logits.unsqueeze(0), [0], [token], [self._count])[0]


@torch.inference_mode()
def score(logits: Tensor, rows: Sequence[int], chosen: Sequence[int], counts: Sequence[int]) -> list[Scored]:
    """Returns the log probabilities of the tokens ``chosen`` in ``rows`` of ``logits`` [rows, vocab] float32, one
    result for each. ``counts`` says for each row of ``logits`` how many most probable tokens the result has."""
    logprobs = logits.log_softmax(-1)
    values, tokens = (each.tolist() for each in logprobs.topk(min(max(counts), logits.shape[1])))
    own = logprobs[list(rows), list(chosen)]
    # Row by row, because many choices may share a row, and doing all at once would copy it for each.
    better = torch.stack([(logprobs[row] > one).sum() for row, one in zip(rows, own, strict=True)])
    ranks = (better + 1).tolist()
    tops = [tuple(zip(tokens[row][: counts[row]], values[row][: counts[row]], strict=True)) for row in rows]
    return [Scored(one, top, rank) for one, top, rank in zip(own.tolist(), tops, ranks, strict=True)]
