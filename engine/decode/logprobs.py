"""How probable tokens were: the chosen one, and the likeliest beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decode.sampling import Draw, cut


@dataclass(frozen=True, slots=True)
class Scored:
    """Natural logarithms of probabilities: of a token, and of the likeliest in its place with their ids; and its rank
    among all, from 1."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    rank: int


class LogprobRecorder:
    """Of one step: takes raw logits before rules change them, and processed ones after."""

    def __init__(self, logits: Tensor, draws: Sequence[Draw]) -> None:
        """``logits`` [rows, vocab] float32, one draw for each row."""
        rows = [row for row, draw in enumerate(draws) if draw.params.records_logprobs]
        self._places = {row: place for place, row in enumerate(rows)}
        self._params = [draws[row].params for row in rows]
        self._logits = logits[rows] if rows else None

    def constrained(self, logits: Tensor) -> None:
        """``logits`` have been changed by rules and grammars."""
        changed = [row for row, at in self._places.items() if self._params[at].logprobs_mode == "processed"]
        if self._logits is not None and changed:
            places = [self._places[row] for row in changed]
            self._logits[places] = cut(logits[changed], [self._params[at] for at in places])

    def scorer(self, row: int) -> RowScorer | None:
        """What scores any token of a row that asked, later and one by one."""
        at = self._places.get(row)
        if at is None or self._logits is None:
            return None
        return RowScorer(self._logits[at], self._params[at].logprobs or 0)

    def scores(self, rows: Sequence[int], tokens: Sequence[int]) -> dict[int, Scored]:
        """For each of ``tokens``, drawn from ``rows``, whose row asked: by its place."""
        asked = [place for place, row in enumerate(rows) if row in self._places]
        if self._logits is None or not asked:
            return {}
        counts = [params.logprobs or 0 for params in self._params]
        found = score(self._logits, [self._places[rows[at]] for at in asked], [tokens[at] for at in asked], counts)
        return dict(zip(asked, found, strict=True))


class RowScorer:
    """Scores tokens in the place of one row: of many candidates few are chosen, and those alone need it."""

    def __init__(self, logits: Tensor, count: int) -> None:
        """``logits`` [vocab] float32; ``count`` of the likeliest are told beside each token."""
        self._logits = logits
        self._count = count

    def score(self, token: int) -> Scored:
        """As ``score`` does for several."""
        return score(self._logits.unsqueeze(0), [0], [token], [self._count])[0]


@torch.inference_mode()
def score(logits: Tensor, rows: Sequence[int], chosen: Sequence[int], counts: Sequence[int]) -> list[Scored]:
    """The tokens ``chosen`` in ``rows`` of ``logits`` [rows, vocab] float32, and as many of a row's likeliest as
    ``counts`` [rows] says."""
    logprobs = logits.log_softmax(-1)
    values, tokens = (each.tolist() for each in logprobs.topk(min(max(counts), logits.shape[1])))
    own = logprobs[list(rows), list(chosen)]
    # Row by row: many branches share one, and all of them at once would be as many copies of it.
    better = torch.stack([(logprobs[row] > one).sum() for row, one in zip(rows, own, strict=True)])
    ranks = (better + 1).tolist()
    tops = [tuple(zip(tokens[row][: counts[row]], values[row][: counts[row]], strict=True)) for row in rows]
    return [Scored(one, top, rank) for one, top, rank in zip(own.tolist(), tops, ranks, strict=True)]
