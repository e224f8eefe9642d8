"""How probable tokens were: the chosen one, and the likeliest beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decode.sampling import Draw, processed


@dataclass(frozen=True, slots=True)
class Scored:
    """Natural logarithms of probabilities: of a token, and of the likeliest in its place with their ids; and its rank
    among all, from 1."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    rank: int


class LogprobRecorder:
    """Of one step: takes what is needed before tokens are drawn, since rules change the logits."""

    def __init__(self, logits: Tensor, draws: Sequence[Draw]) -> None:
        """``logits`` [rows, vocab] float32, one draw for each row."""
        self._rows = [row for row, draw in enumerate(draws) if draw.params.records_logprobs]
        self._draws = [draws[row] for row in self._rows]
        self._logits = logits[self._rows] if self._rows else None

    def scores(self, tokens: Sequence[int | Exception]) -> dict[int, Scored]:
        """For the rows that asked, what was chosen there being ``tokens``."""
        if self._logits is None:
            return {}
        logits = self._logits
        changed = [at for at, draw in enumerate(self._draws) if draw.params.logprobs_mode == "processed"]
        if changed:
            logits[changed] = processed(logits[changed], [self._draws[at] for at in changed])
        chosen = [token if isinstance(token := tokens[row], int) else 0 for row in self._rows]
        counts = [draw.params.logprobs or 0 for draw in self._draws]
        return dict(zip(self._rows, score(logits, chosen, counts), strict=True))


@torch.inference_mode()
def score(logits: Tensor, chosen: Sequence[int], counts: Sequence[int]) -> list[Scored]:
    """For each row of ``logits`` [rows, vocab] float32 the token ``chosen`` and as many of the likeliest as ``counts``
    says."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(chosen, device=logits.device).unsqueeze(1))
    ranks = (logprobs > own).sum(-1) + 1
    values, tokens = logprobs.topk(min(max(counts), logits.shape[1]))
    rows = zip(own.squeeze(1).tolist(), ranks.tolist(), values.tolist(), tokens.tolist(), counts, strict=True)
    return [Scored(one, tuple(zip(ids[:n], best[:n], strict=True)), rank) for one, rank, best, ids, n in rows]
