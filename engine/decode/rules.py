"""What a request favours, discourages and forbids: changes to its logits before a token is drawn.

In this order, which is transformers' where it has the same:

1. ``logit_bias`` is added; 2. ``repetition_penalty`` divides positive logits of tokens of prompt and answer, and
multiplies negative ones (Keskar et al. 2019); 3. ``presence_penalty``, and ``frequency_penalty`` for each occurrence,
are taken off tokens of the answer (OpenAI's); 4. what would repeat an n-gram of prompt and answer is forbidden; 5. what
would complete one of ``bad_words`` is; 6. until ``min_tokens`` are there, what would end the answer is; 7. all but
``allowed_token_ids`` is.

Temperature and the cuts of the distribution follow, in ``sampling``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.api import SamplingParams
from engine.decode.token_counts import TokenCounts


class LogitRules:
    """Those of one sequence. Its tokens are read as they come; what is said of them is a function of them alone."""

    def __init__(
        self,
        params: SamplingParams,
        prompt_length: int,
        vocab_size: int,
        final_tokens: Collection[int] = (),
        bad_words: Sequence[tuple[int, ...]] = (),
    ) -> None:
        """``final_tokens`` end an answer; ``bad_words`` are those of the request, as tokens."""
        self.params = params
        self._prompt_length = prompt_length
        self._final_tokens = tuple(final_tokens)
        self._bad_words = tuple(bad_words)
        self._read = 0
        self.bias = _bias(params)
        self.allowed = _mask(params.allowed_token_ids, vocab_size)
        self.seen = TokenCounts() if params.repetition_penalty != 1 else None
        self.said = TokenCounts() if params.presence_penalty or params.frequency_penalty else None
        self._followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        self._common: tuple[Mapping[tuple[int, ...], set[int]], ...] = ()  # read before branches parted

    @classmethod
    def of(
        cls,
        params: SamplingParams,
        prompt_length: int,
        vocab_size: int,
        final_tokens: Collection[int] = (),
        bad_words: Sequence[tuple[int, ...]] = (),
    ) -> LogitRules | None:
        """None for a request that has none."""
        wanted = (
            params.logit_bias,
            params.repetition_penalty != 1,
            params.presence_penalty,
            params.frequency_penalty,
            params.no_repeat_ngram_size,
            params.bad_words,
            params.min_tokens,
            params.allowed_token_ids is not None,
        )
        return cls(params, prompt_length, vocab_size, final_tokens, bad_words) if any(wanted) else None

    def branch(self) -> LogitRules:
        """The same for another sequence that begins with the tokens read so far."""
        twin = copy(self)
        twin.seen = None if self.seen is None else self.seen.copy()
        twin.said = None if self.said is None else self.said.copy()
        # What both have read neither changes any more.
        if self._followers:
            self._common = twin._common = (*self._common, self._followers)
        self._followers, twin._followers = defaultdict(set), defaultdict(set)
        return twin

    def read(self, tokens: Sequence[int]) -> None:
        """Takes note of those of ``tokens``, the sequence's so far, that are new."""
        start, self._read = self._read, len(tokens)
        if self.seen is not None:
            self.seen.add(tokens[start:])
        if self.said is not None:
            self.said.add(tokens[max(start, self._prompt_length) :])
        if size := self.params.no_repeat_ngram_size:
            for end in range(max(start, size - 1), len(tokens)):
                self._followers[tuple(tokens[end - size + 1 : end])].add(tokens[end])

    def forbidden(self, tokens: Sequence[int]) -> set[int]:
        """Tokens that may not follow ``tokens``, which have been read."""
        found: set[int] = set()
        if size := self.params.no_repeat_ngram_size:
            beginning = tuple(tokens[len(tokens) - size + 1 :])
            for followers in (*self._common, self._followers):
                found |= followers.get(beginning, set())
        for *start, last in self._bad_words:
            if not start or list(tokens[-len(start) :]) == start:
                found.add(last)
        if len(tokens) - self._prompt_length < self.params.min_tokens:
            found.update(self._final_tokens)
        return found


@dataclass(frozen=True, slots=True)
class RuledRow:
    """A row of logits, whose rules apply, and the tokens that it follows."""

    row: int
    rules: LogitRules
    tokens: Sequence[int]


def apply_rules(logits: Tensor, ruled: Sequence[RuledRow]) -> None:
    """Changes ``logits`` [rows, vocab] float32 in place; what is forbidden becomes -inf."""
    for each in ruled:
        each.rules.read(each.tokens)
    _add_bias(logits, [(each.row, each.rules.bias) for each in ruled if each.rules.bias is not None])
    _penalise_repetition(logits, [each for each in ruled if each.rules.seen])
    _penalise_said(logits, [each for each in ruled if each.rules.said])
    _forbid(logits, [(each.row, each.rules.forbidden(each.tokens)) for each in ruled])
    _allow(logits, [(each.row, each.rules.allowed) for each in ruled if each.rules.allowed is not None])


def _add_bias(logits: Tensor, biased: Sequence[tuple[int, tuple[Tensor, Tensor]]]) -> None:
    if biased:
        place = _places(logits, [(row, tokens) for row, (tokens, _) in biased])
        logits[place] += torch.cat([values for _, (_, values) in biased]).to(logits.device)


def _penalise_repetition(logits: Tensor, ruled: Sequence[RuledRow]) -> None:
    if ruled:
        seen = [(each, each.rules.seen) for each in ruled if each.rules.seen is not None]
        place = _places(logits, [(each.row, counts.ids) for each, counts in seen])
        penalty = _spread(logits, ruled, lambda params: params.repetition_penalty, [len(c) for _, c in seen])
        found = logits[place]
        logits[place] = torch.where(found < 0, found * penalty, found / penalty)


def _penalise_said(logits: Tensor, ruled: Sequence[RuledRow]) -> None:
    if ruled:
        said = [(each, each.rules.said) for each in ruled if each.rules.said is not None]
        lengths = [len(counts) for _, counts in said]
        place = _places(logits, [(each.row, counts.ids) for each, counts in said])
        counts = torch.cat([counts.counts for _, counts in said]).to(logits.device)
        per_token = _spread(logits, ruled, lambda params: params.frequency_penalty, lengths)
        logits[place] -= counts * per_token + _spread(logits, ruled, lambda params: params.presence_penalty, lengths)


def _forbid(logits: Tensor, forbidden: Sequence[tuple[int, set[int]]]) -> None:
    rows = [row for row, tokens in forbidden for _ in tokens]
    if rows:
        columns = [token for _, tokens in forbidden for token in tokens]
        logits[torch.tensor(rows, device=logits.device), torch.tensor(columns, device=logits.device)] = -torch.inf


def _allow(logits: Tensor, allowed: Sequence[tuple[int, Tensor]]) -> None:
    for row, mask in allowed:
        logits[row].masked_fill_(~mask.to(logits.device), -torch.inf)


def _places(logits: Tensor, tokens: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Index of the ``tokens`` of each row."""
    rows = torch.tensor([row for row, _ in tokens]).repeat_interleave(torch.tensor([len(ids) for _, ids in tokens]))
    return rows.to(logits.device), torch.cat([ids for _, ids in tokens]).to(logits.device)


def _spread(
    logits: Tensor, ruled: Sequence[RuledRow], value: Callable[[SamplingParams], float], lengths: Sequence[int]
) -> Tensor:
    """A setting of each row, as often as it has tokens."""
    values = torch.tensor([value(each.rules.params) for each in ruled], dtype=torch.float32)
    return values.repeat_interleave(torch.tensor(lengths)).to(logits.device)


def _bias(params: SamplingParams) -> tuple[Tensor, Tensor] | None:
    if not params.logit_bias:
        return None
    return torch.tensor(list(params.logit_bias)), torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)


def _mask(tokens: Sequence[int] | None, vocab_size: int) -> Tensor | None:
    if tokens is None:
        return None
    return torch.zeros(vocab_size, dtype=torch.bool).index_fill_(0, torch.tensor(list(tokens)), True)
