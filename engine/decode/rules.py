"""Logit rules: how a request changes its logits before sampling (vLLM's and transformers' logits processors).

They apply in this order, which is transformers' where it has the same rule:

1. ``logit_bias`` is added.
2. ``repetition_penalty`` divides positive logits of tokens in prompt and answer, and multiplies negative ones (Keskar
   et al. 2019).
3. ``presence_penalty`` is subtracted for tokens in the answer, ``frequency_penalty`` for each occurrence (OpenAI).
4. ``no_repeat_ngram_size`` forbids tokens that would repeat an n-gram of prompt and answer.
5. ``bad_words`` forbids tokens that would complete one of these.
6. ``min_tokens`` forbids tokens that end the answer until the answer has this many tokens.
7. ``allowed_token_ids`` forbids all other tokens.

Temperature and the cuts of the distribution come after them, in ``sampling``.
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
    """The logit rules of one sequence. Reads its tokens as they come; the rules depend on nothing else."""

    def __init__(
        self,
        params: SamplingParams,
        prompt_length: int,
        vocab_size: int,
        final_tokens: Collection[int] = (),
        bad_words: Sequence[tuple[int, ...]] = (),
    ) -> None:
        """``final_tokens`` are the tokens that end an answer; ``bad_words`` are the token sequences that are
        forbidden."""
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
        self._common: tuple[Mapping[tuple[int, ...], set[int]], ...] = ()  # n-grams shared with other choices

    @classmethod
    def of(
        cls,
        params: SamplingParams,
        prompt_length: int,
        vocab_size: int,
        final_tokens: Collection[int] = (),
        bad_words: Sequence[tuple[int, ...]] = (),
    ) -> LogitRules | None:
        """Returns the logit rules of a request, or None if it has none."""
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
        """Returns a copy for another choice or beam that begins with the tokens read so far."""
        twin = copy(self)
        twin.seen = None if self.seen is None else self.seen.copy()
        twin.said = None if self.said is None else self.said.copy()
        # The n-grams read so far are shared, and neither copy changes them any more.
        if self._followers:
            self._common = twin._common = (*self._common, self._followers)
        self._followers, twin._followers = defaultdict(set), defaultdict(set)
        return twin

    def read(self, tokens: Sequence[int]) -> None:
        """Reads those of ``tokens``, the sequence's tokens so far, that it has not read yet."""
        start, self._read = self._read, len(tokens)
        if self.seen is not None:
            self.seen.add(tokens[start:])
        if self.said is not None:
            self.said.add(tokens[max(start, self._prompt_length) :])
        if size := self.params.no_repeat_ngram_size:
            for end in range(max(start, size - 1), len(tokens)):
                self._followers[tuple(tokens[end - size + 1 : end])].add(tokens[end])

    def forbidden(self, tokens: Sequence[int]) -> set[int]:
        """Returns the tokens that must not follow ``tokens``, which have been read."""
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
    """A row of logits, the rules that apply to it, and the tokens before it."""

    row: int
    rules: LogitRules
    tokens: Sequence[int]


def apply_rules(logits: Tensor, ruled: Sequence[RuledRow]) -> None:
    """Applies rules to ``logits`` [rows, vocab] float32, in place. Forbidden tokens become -inf."""
    for each in ruled:
        each.rules.read(each.tokens)
    _add_bias(logits, [(each.row, each.rules.bias) for each in ruled if each.rules.bias is not None])
    _penalise_repetition(logits, [each for each in ruled if each.rules.seen])
    _penalise_said(logits, [each for each in ruled if each.rules.said])
    _forbid(logits, [(each.row, each.rules.forbidden(each.tokens)) for each in ruled])
    _allow(logits, [(each.row, each.rules.allowed) for each in ruled if each.rules.allowed is not None])


def _add_bias(logits: Tensor, biased: Sequence[tuple[int, tuple[Tensor, Tensor]]]) -> None:
    """Adds ``logit_bias``."""
    if biased:
        place = _places(logits, [(row, tokens) for row, (tokens, _) in biased])
        logits[place] += torch.cat([values for _, (_, values) in biased]).to(logits.device)


def _penalise_repetition(logits: Tensor, ruled: Sequence[RuledRow]) -> None:
    """Applies ``repetition_penalty``."""
    if ruled:
        seen = [(each, each.rules.seen) for each in ruled if each.rules.seen is not None]
        place = _places(logits, [(each.row, counts.ids) for each, counts in seen])
        penalty = _spread(logits, ruled, lambda params: params.repetition_penalty, [len(c) for _, c in seen])
        found = logits[place]
        logits[place] = torch.where(found < 0, found * penalty, found / penalty)


def _penalise_said(logits: Tensor, ruled: Sequence[RuledRow]) -> None:
    """Applies ``presence_penalty`` and ``frequency_penalty``."""
    if ruled:
        said = [(each, each.rules.said) for each in ruled if each.rules.said is not None]
        lengths = [len(counts) for _, counts in said]
        place = _places(logits, [(each.row, counts.ids) for each, counts in said])
        counts = torch.cat([counts.counts for _, counts in said]).to(logits.device)
        per_token = _spread(logits, ruled, lambda params: params.frequency_penalty, lengths)
        logits[place] -= counts * per_token + _spread(logits, ruled, lambda params: params.presence_penalty, lengths)


def _forbid(logits: Tensor, forbidden: Sequence[tuple[int, set[int]]]) -> None:
    """Sets the ``forbidden`` tokens of each row to -inf."""
    rows = [row for row, tokens in forbidden for _ in tokens]
    if rows:
        columns = [token for _, tokens in forbidden for token in tokens]
        logits[torch.tensor(rows, device=logits.device), torch.tensor(columns, device=logits.device)] = -torch.inf


def _allow(logits: Tensor, allowed: Sequence[tuple[int, Tensor]]) -> None:
    """Sets all but the ``allowed`` tokens (bool [vocab]) of each row to -inf."""
    for row, mask in allowed:
        logits[row].masked_fill_(~mask.to(logits.device), -torch.inf)


def _places(logits: Tensor, tokens: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Returns the index of the given tokens of each row: row and column, int64."""
    rows = torch.tensor([row for row, _ in tokens]).repeat_interleave(torch.tensor([len(ids) for _, ids in tokens]))
    return rows.to(logits.device), torch.cat([ids for _, ids in tokens]).to(logits.device)


def _spread(
    logits: Tensor, ruled: Sequence[RuledRow], value: Callable[[SamplingParams], float], lengths: Sequence[int]
) -> Tensor:
    """Returns a setting of each row, repeated as often as ``lengths`` says."""
    values = torch.tensor([value(each.rules.params) for each in ruled], dtype=torch.float32)
    return values.repeat_interleave(torch.tensor(lengths)).to(logits.device)


def _bias(params: SamplingParams) -> tuple[Tensor, Tensor] | None:
    """Returns the tokens (int64) and values (float32) of ``logit_bias``, or None."""
    if not params.logit_bias:
        return None
    return torch.tensor(list(params.logit_bias)), torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)


def _mask(tokens: Sequence[int] | None, vocab_size: int) -> Tensor | None:
    """Returns a mask bool [vocab] of the allowed tokens, or None."""
    if tokens is None:
        return None
    return torch.zeros(vocab_size, dtype=torch.bool).index_fill_(0, torch.tensor(list(tokens)), True)
