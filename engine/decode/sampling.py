"""Samples the next token of each row of a batch, each with its own settings.

After the logit rules (``rules``) a row is divided by the temperature, and its distribution is cut by top-k (Fan et al.
2018), top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024) and typical-p (Meister et al. 2022). Each cut applies to
what the one before left, in transformers' order. Temperature 0 takes the largest logit instead.

The token of a row depends on its own logits, settings, seed and position only: no operation here mixes rows.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from engine.api import SamplingParams, UnsatisfiableError
from engine.decode.grammar import GrammarError, GrammarState, forbid
from engine.decode.random import gumbel
from engine.decode.rules import LogitRules, RuledRow, apply_rules

MIN_TEMPERATURE = 1e-5
"""Lowest temperature. One below it that is not 0 counts as this."""
_MAX_LOGITS = 1 << 24
"""Most logits that are sampled from at once. Many choices of a large vocabulary would otherwise take gigabytes."""
_FIRST_LOOK = 256
"""Number of most probable tokens that are sorted first. It suffices for most values of top_p and top_k, and sorting
them costs a tenth of sorting all."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The inputs for sampling a token from one row: settings, and the seed and position of its random numbers.
    ``tokens`` are the tokens before it; only ``rules`` and ``grammar`` read them."""

    params: SamplingParams
    seed: int
    position: int  # of the token to sample, counted from the start of the prompt
    rules: LogitRules | None = None
    tokens: Sequence[int] = ()
    grammar: GrammarState | None = None
    candidates: int = 0  # number of candidates for a beam search; 0: one token is sampled


NOTHING_LEFT = "The rules of this request leave no token to choose from."
"""Message of a NothingLeftError."""


class NothingLeftError(UnsatisfiableError):
    """The rules of a request forbid every token."""


class Faults:
    """The rows that no token can be sampled from. The results of checks stay on the device until they are read, so that
    nothing waits for the device before."""

    def __init__(self, sound: Tensor, left: Tensor | None, known: dict[int, Exception]) -> None:
        """``sound`` and ``left`` are bool [rows]: whether a row's largest logit was finite before, and after, rules and
        grammars were applied. ``left`` is None if there were none. ``known`` are errors of grammars."""
        self._sound = sound
        self._left = left
        self._known = known

    @cached_property
    def by_row(self) -> dict[int, Exception]:
        """The error of each faulty row: FloatingPointError if its largest logit was not finite, GrammarError if its
        grammar failed, NothingLeftError if every token is forbidden."""
        sound, left = torch.stack((self._sound, self._sound if self._left is None else self._left)).tolist()
        faults: dict[int, Exception] = {row: FloatingPointError() for row, is_sound in enumerate(sound) if not is_sound}
        faults = self._known | faults
        for row, some in enumerate(left):
            if not some:
                faults.setdefault(row, NothingLeftError(NOTHING_LEFT))
        return faults


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int | Exception]:
    """Returns the token sampled from each row of ``logits`` [rows, vocab] float32, or the error of that row. ``draws``
    has one draw per row. Rules change ``logits`` in place."""
    faults = constrain(logits, draws)
    tokens = draw_tokens(logits, draws, range(len(draws)))
    return [faults.by_row.get(row, token) for row, token in enumerate(tokens)]


@torch.inference_mode()
def constrain(logits: Tensor, draws: Sequence[Draw], postponed: Container[int] = ()) -> Faults:
    """Applies the rules and grammars of the rows to ``logits`` [rows, vocab], in place. Returns the rows that cannot be
    sampled from. The token masks of the grammars of ``postponed`` rows are not applied: ``check`` checks these rows
    after sampling."""
    sound = logits.amax(-1).isfinite()
    if not any(draw.rules is not None or draw.grammar is not None for draw in draws):
        return Faults(sound, None, {})
    faults: dict[int, Exception] = {}
    apply_rules(logits, [RuledRow(row, d.rules, d.tokens) for row, d in enumerate(draws) if d.rules is not None])
    formed: list[tuple[int, GrammarState]] = []
    for row, draw in enumerate(draws):
        if draw.grammar is not None:
            try:
                draw.grammar.read(draw.tokens)
                if row not in postponed or draw.grammar.forced(1):
                    formed.append((row, draw.grammar))
            except GrammarError as error:
                faults[row] = error
    for row, why in forbid(logits, formed).items():
        faults.setdefault(row, why)
    return Faults(sound, logits.amax(-1).isfinite(), faults)


def can_be_checked(draw: Draw) -> bool:
    """Returns whether the grammar of a row may be checked after sampling instead of masking its logits before. The
    sampled token is the one with the largest logit plus noise; if the grammar allows it, it is also the largest of the
    allowed ones. Not if a cut, processed log probabilities or a beam search depend on which tokens are allowed."""
    needs_mask = draw.params.records_logprobs and draw.params.logprobs_mode == "processed"
    return draw.grammar is not None and not (_is_cut(draw.params) or needs_mask or draw.candidates)


@torch.inference_mode()
def check(
    logits: Tensor,
    draws: Sequence[Draw],
    rows: Sequence[int],
    tokens: list[int],
    postponed: Container[int],
    faults: dict[int, Exception],
) -> None:
    """Checks the ``tokens`` sampled from ``rows`` by ``draw_tokens`` against the grammars of ``postponed`` rows. Where
    one is not allowed, masks the row and samples again, replacing the token in place. Adds rows for which that fails to
    ``faults``."""
    wrong = [
        place
        for place, (row, draw, token) in enumerate(zip(rows, draws, tokens, strict=True))
        if row in postponed and row not in faults and draw.grammar is not None and not draw.grammar.allows(token)
    ]
    if not wrong:
        return
    states = {rows[place]: state for place in wrong if (state := draws[place].grammar) is not None}
    for row, why in forbid(logits, sorted(states.items())).items():
        faults.setdefault(row, why)
    left = logits[torch.tensor(list(states), device=logits.device)].amax(-1).isfinite()
    for row, some in zip(states, left.tolist(), strict=True):
        if not some:
            faults.setdefault(row, NothingLeftError(NOTHING_LEFT))
    again = draw_tokens(logits, [draws[place] for place in wrong], [rows[place] for place in wrong])
    for place, token in zip(wrong, again, strict=True):
        tokens[place] = token


def draw_tokens(logits: Tensor, draws: Sequence[Draw], rows: Sequence[int]) -> list[int]:
    """Samples a token for each draw, and returns their ids, one per draw. ``rows`` has the row of ``logits`` [rows,
    vocab] float32 of each draw; several draws may use one row. The token of a faulty row is meaningless."""
    tokens: list[int] = draw_there(logits, draws, rows).tolist()
    return tokens


@torch.inference_mode()
def draw_there(logits: Tensor, draws: Sequence[Draw], rows: Sequence[int]) -> Tensor:
    """Samples a token for each draw, and returns their ids, [draws] int64, on the device of ``logits``. ``rows`` has
    the row of ``logits`` [rows, vocab] float32 of each draw. Only typical-p waits for the device."""
    return (draw_fused if logits.is_cuda else draw_plain)(logits, draws, rows)


def draw_fused(logits: Tensor, draws: Sequence[Draw], rows: Sequence[int]) -> Tensor:
    """Samples a token for each draw with Triton kernels. Draws that they do not support use ``draw_plain``. Arguments
    and result are those of ``draw_there``."""
    from engine.kernels.triton.sampling import can_draw, sample_tokens, settings_of

    chosen = sample_tokens(logits, settings_of(draws, rows, logits.shape[1]).to(logits.device))
    others = [place for place, draw in enumerate(draws) if not can_draw(draw.params)]
    if others:
        places = torch.tensor(others, device=logits.device)
        chosen[places] = draw_plain(logits, [draws[place] for place in others], [rows[place] for place in others])
    return chosen


def draw_plain(logits: Tensor, draws: Sequence[Draw], rows: Sequence[int]) -> Tensor:
    """Samples a token for each draw with torch operations, on any device. It is the reference for ``draw_fused``.
    ``rows`` has the row of ``logits`` [rows, vocab] float32 of each draw. Returns token ids, [draws] int64, on that
    device."""
    index = torch.tensor(list(rows), dtype=torch.int64, device=logits.device)
    chosen = logits.argmax(-1)[index]
    drawn = [place for place, draw in enumerate(draws) if draw.params.temperature > 0]
    together = max(1, _MAX_LOGITS // logits.shape[1])
    for start in range(0, len(drawn), together):
        part = drawn[start : start + together]
        places = torch.tensor(part, device=logits.device)
        chosen[places] = _sample_random(logits[index[places]], [draws[place] for place in part])
    return chosen


def processed(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Returns ``logits`` [rows, vocab] float32 as tokens are sampled from them: after rules, grammars, temperature and
    cuts."""
    logits = logits.clone()
    constrain(logits, draws)
    return cut(logits, [draw.params for draw in draws])


def cut(logits: Tensor, params: Sequence[SamplingParams], least: int = 1) -> Tensor:
    """Returns ``logits`` [rows, vocab] float32 after temperature and cuts, with -inf for tokens that are cut. Each cut
    keeps at least ``least`` tokens, the best by its own criterion. Rows with temperature 0 are returned unchanged."""
    rows = [row for row, each in enumerate(params) if each.temperature > 0]
    if not rows:
        return logits
    index = torch.tensor(rows, device=logits.device)
    drawn = [params[row] for row in rows]
    kept, tokens, _ = _narrow(_tempered(logits[index], drawn), drawn, logits.shape[1], least)
    logits = logits.clone()
    logits[index] = torch.empty_like(kept).scatter_(1, tokens, kept)
    return logits


def _tempered(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Returns ``logits`` divided by the temperatures."""
    temperatures = [max(each.temperature, MIN_TEMPERATURE) for each in params]
    return logits / torch.tensor(temperatures, device=logits.device).unsqueeze(1)


def _is_cut(params: SamplingParams) -> bool:
    """Returns whether a cut applies: top-k, top-p, min-p or typical-p."""
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0 or params.typical_p < 1


def _sample_random(logits: Tensor, draws: list[Draw]) -> Tensor:
    """Samples a token from the softmax of each row, after temperature and cuts."""
    logits = _tempered(logits, [draw.params for draw in draws])
    narrow = [_is_cut(draw.params) for draw in draws]
    if not any(narrow):
        return _choose_from_all(logits, draws)
    chosen = torch.empty(len(draws), dtype=torch.int64, device=logits.device)
    for kind, choose in ((False, _choose_from_all), (True, _choose_from_likeliest)):
        rows = [row for row, is_narrow in enumerate(narrow) if is_narrow is kind]
        if rows:
            index = torch.tensor(rows, device=logits.device)
            chosen[index] = choose(logits[index], [draws[row] for row in rows])
    return chosen


def _choose_from_all(logits: Tensor, draws: list[Draw]) -> Tensor:
    """Samples from rows without cuts."""
    return _race(logits, torch.arange(logits.shape[1], device=logits.device).unsqueeze(0), draws)


def _choose_from_likeliest(logits: Tensor, draws: list[Draw], width: int = _FIRST_LOOK) -> Tensor:
    """Samples from rows with cuts. Sorts only the ``width`` most probable tokens of each row; rows that need more are
    done again with all."""
    width = min(width, logits.shape[1])
    kept, tokens, enough = _narrow(logits, [draw.params for draw in draws], width)
    chosen = _race(kept, tokens, draws)
    wider = [row for row, is_enough in enumerate(enough.tolist()) if not is_enough]
    if wider and width < logits.shape[1]:
        index = torch.tensor(wider, device=logits.device)
        chosen[index] = _choose_from_likeliest(logits[index], [draws[row] for row in wider], logits.shape[1])
    return chosen


def _race(logits: Tensor, tokens: Tensor, draws: list[Draw]) -> Tensor:
    """Samples by the Gumbel-max trick: the argmax of logits plus Gumbel noise is a sample from their softmax.
    ``tokens`` are the token ids of the columns of ``logits``: [rows, n], or [1, n] if all rows have the same."""
    noise = gumbel([draw.seed for draw in draws], [draw.position for draw in draws], tokens)
    winner = noise.add_(logits).argmax(-1, keepdim=True)
    return tokens.expand(len(draws), -1).gather(1, winner).squeeze(1)


def _narrow(logits: Tensor, params: list[SamplingParams], width: int, least: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the ``width`` largest logits of each row with -inf for tokens that are cut, their token ids, both [rows,
    width], and bool [rows]: whether these are all tokens that are not cut. Top-p keeps the smallest set of most
    probable tokens that reaches ``top_p``. Each cut keeps its ``least`` best tokens."""
    vocab, device = logits.shape[1], logits.device
    top_k = torch.tensor([[max(p.top_k, least) if 0 < p.top_k < vocab else vocab] for p in params], device=device)
    top_p = torch.tensor([[p.top_p] for p in params], device=device)
    ordered, tokens = logits.topk(width)
    ordered.masked_fill_(torch.arange(width, device=device) >= top_k, -torch.inf)
    total = torch.where(top_k <= width, ordered.logsumexp(-1, keepdim=True), logits.logsumexp(-1, keepdim=True))
    reached = (ordered - total).exp_().cumsum(-1)
    # Not where top_p is 1: by rounding the sum may reach 1 before the last token.
    cut = (reached[:, :-1] >= top_p) & (top_p < 1)
    # If the last of these tokens is cut, all further ones are. Unknown if top_k exceeds the width: the sum that top_p
    # is a share of is incomplete.
    beyond = (reached[:, -1:] >= top_p) & (top_p < 1)
    ordered[:, least:].masked_fill_(cut[:, least - 1 :], -torch.inf)
    if any(p.min_p > 0 for p in params):
        lowest = ordered[:, :1] + torch.tensor([[p.min_p] for p in params], device=device).log()
        beyond |= logits.gather(1, tokens[:, -1:]) < lowest
        ordered[:, least:].masked_fill_(ordered[:, least:] < lowest, -torch.inf)
    enough = (top_k <= width) | ((top_k == vocab) & beyond)
    if any(p.typical_p < 1 for p in params):
        _keep_typical(ordered, torch.tensor([[p.typical_p] for p in params], device=device), least)
    return ordered, tokens, enough.squeeze(1)


def _keep_typical(logits: Tensor, mass: Tensor, least: int) -> None:
    """Locally typical sampling, in place: keeps the tokens whose surprise is nearest to the entropy, until their
    probabilities reach ``mass`` [rows, 1], and at least ``least``. A mass of 1 cuts nothing."""
    surprise = -logits.log_softmax(-1)
    probabilities = (-surprise).exp()
    entropy = (probabilities * surprise).nansum(-1, keepdim=True)
    distance, order = (surprise - entropy).abs().sort(-1)
    reached = probabilities.gather(1, order).cumsum(-1)
    last = (reached < mass).sum(-1, keepdim=True).clamp_(min=least - 1).clamp_(max=logits.shape[1] - 1)
    farthest = distance.gather(1, last)
    logits.masked_fill_(((surprise - entropy).abs() > farthest) & (mass < 1), -torch.inf)
