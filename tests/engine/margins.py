"""How far apart choices are: what a test must know before it compares tokens that were computed in two ways.

Two correct programs round differently, and so does one program on two processors. Where two candidates are a millionth
apart, each program may take another one, and every token after it differs. So tests compare tokens only where the
margin of each choice, the gap between what is chosen and the best of what is not, is larger than any rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.api import SamplingParams
from engine.decode import sampling
from engine.decode.random import gumbel
from engine.decode.sampling import Draw, cut

MIN_MARGIN = 1e-4
"""In units of logits. Float32 logits of the tests' models are off by 1e-6 to 1e-5."""
MIN_ROUNDED_MARGIN = 0.02
"""The same where keys, values or inputs are stored in eight bits. A number on the edge between two may fall to either
side, which moves logits by up to 0.01."""

Tokens = tuple[int, ...]


def greedy_margins(logits: Tensor) -> Tensor:
    """By how much the largest of each row of ``logits`` [rows, vocab] exceeds the second largest, [rows]."""
    first, second = logits.topk(2, -1).values.unbind(-1)
    return first - second


def clear_choices(margins: Iterable[float], least: float = MIN_MARGIN) -> int:
    """How many choices come before the first whose margin is below ``least``."""
    count = 0
    for margin in margins:
        if not margin >= least:
            break
        count += 1
    return count


def draw_margins(logits: Tensor, draws: Sequence[Draw]) -> list[float]:
    """By how much each draw's token wins, noise included, in units of logits over temperature; 0 where a token on the
    border of a cut decides. ``logits`` [rows, vocab] float32 are what the sampler gets."""
    margins: list[float] = greedy_margins(logits).tolist()
    for row, draw in enumerate(draws):
        if draw.params.temperature > 0:
            margins[row] = _sampled_margin(logits[row : row + 1], draw)
    return margins


def _sampled_margin(logits: Tensor, draw: Draw) -> float:
    noise = gumbel([draw.seed], [draw.position], torch.arange(logits.shape[1], device=logits.device).unsqueeze(0))
    raced = [cut(logits, [params]) + noise for params in _nearby(logits, draw.params)]
    if len({int(each.argmax()) for each in raced}) > 1:
        return 0.0
    return min(float(greedy_margins(each)) for each in raced)


def _nearby(logits: Tensor, params: SamplingParams) -> list[SamplingParams]:
    """The settings, and those whose cuts are a little narrower and a little wider: by as much as probabilities change
    when logits are off by MIN_MARGIN."""
    off = 2 * MIN_MARGIN
    found = [params]
    for sign in (-1, 1):
        changes: dict[str, Any] = {}
        if params.top_p < 1:
            changes["top_p"] = params.top_p + sign * off * params.top_p * (1 - params.top_p)
        if params.min_p > 0:
            changes["min_p"] = min(1.0, params.min_p * (1 - sign * off))
        if params.typical_p < 1:
            changes["typical_p"] = params.typical_p + sign * off * params.typical_p * (1 - params.typical_p)
        if 0 < params.top_k < logits.shape[1] and _kth_margin(logits, params) < off:
            changes["top_k"] = max(1, params.top_k + sign)
        if changes:
            found.append(replace(params, **changes))
    return found


def _kth_margin(logits: Tensor, params: SamplingParams) -> float:
    last, first_cut = (logits / params.temperature).topk(params.top_k + 1).values[0, -2:].tolist()
    return float(last - first_cut)


class Choices:
    """Notes the margins of what every engine in this process draws from torch logits.

    Draws without a seed are left out, since nothing is compared with them, and so are tokens that a speculating engine
    draws after its guesses: the engine that it is compared with draws the same ones.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.close: dict[Tokens, float] = {}
        """The margins below MIN_ROUNDED_MARGIN, by the tokens before the choice, those of the prompt included."""
        draw_there = sampling.draw_there

        def noting(logits: Tensor, draws: Sequence[Draw], rows: Sequence[int]) -> Tensor:
            self._note(logits, draws, rows)
            return draw_there(logits, draws, rows)

        monkeypatch.setattr(sampling, "draw_there", noting)

    def _note(self, logits: Tensor, draws: Sequence[Draw], rows: Sequence[int]) -> None:
        seen = [place for place, draw in enumerate(draws) if _is_compared(draw)]
        if not seen:
            return
        noted = [draws[place] for place in seen]
        margins = draw_margins(logits[[rows[place] for place in seen]], noted)
        for draw, margin in zip(noted, margins, strict=True):
            if margin < MIN_ROUNDED_MARGIN:
                before = tuple(draw.tokens)
                self.close[before] = min(margin, self.close.get(before, margin))

    def check(self) -> None:
        """Raises AssertionError if a choice was not clear: the test wants another seed or prompt."""
        unclear = [margin for margin in self.close.values() if margin < MIN_MARGIN]
        assert not unclear, f"rounding might turn {len(unclear)} choices of this test; margins {sorted(unclear)[:5]}"

    def same(
        self, prompts: Sequence[Sequence[int]], found: Sequence[Tokens], expected: Sequence[Tokens], share: float
    ) -> None:
        """Each answer must be the expected one up to its first choice whose margin is below MIN_ROUNDED_MARGIN; at
        least ``share`` of the tokens must come before those."""
        compared = 0
        for prompt, mine, theirs in zip(prompts, found, expected, strict=True):
            befores = ((*prompt, *theirs[:at]) for at in range(len(theirs)))
            clear = clear_choices((self.close.get(before, torch.inf) for before in befores), MIN_ROUNDED_MARGIN)
            assert mine[:clear] == theirs[:clear]
            compared += clear
        assert compared >= share * sum(map(len, expected)), f"{compared} tokens were compared"


def _is_compared(draw: Draw) -> bool:
    repeatable = draw.params.temperature == 0 or draw.params.seed is not None
    return repeatable and draw.position == len(draw.tokens)
