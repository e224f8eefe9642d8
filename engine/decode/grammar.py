"""Answers of a given form: which tokens may come next, by llguidance (an Earley parser over a trie of the vocabulary).

A grammar is compiled once and kept; each sequence has a copy of it that has read the sequence's tokens. The library is
loaded with the first grammar: an engine that never sees one runs without it.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.api import Grammar, RequestError, UnsatisfiableError

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher, LLTokenizer

MAX_GRAMMAR_CHARS = 65_536  # characters
MAX_CACHED_GRAMMARS = 128  # compiled grammars
# What one grammar may cost, in llguidance's units: about 20 ms to build its lexer, 15 ms for the mask of a step.
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,  # they quote the text, and end in logs
}
# As Python's json.dumps writes, so that most of an object's syntax is forced.
JSON_STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class GrammarError(UnsatisfiableError):
    """A grammar gave up on a sequence: too complex, or its tokens do not follow it."""


class GrammarState:
    """One sequence's place in its grammar; a function of the tokens of its answer."""

    def __init__(self, matcher: LLMatcher, prompt_length: int) -> None:
        """``matcher`` is at its start, and nobody else's."""
        self.matcher = matcher
        self._read = prompt_length
        self._ahead: list[int] = []  # what must come next, as far as it is known, the next one last
        self._look_ahead()

    def copy(self) -> GrammarState:
        """Another at the same place, for a branch."""
        twin = object.__new__(GrammarState)
        twin.matcher, twin._read, twin._ahead = self.matcher.deep_copy(), self._read, list(self._ahead)
        return twin

    @property
    def complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    def completed_by(self, token: int) -> bool:
        """Whether nothing could follow ``token`` but the end. What has been read stays as it is. Raises GrammarError if
        it may not come next."""
        matcher = self.matcher.deep_copy()
        if not matcher.consume_tokens([token]):
            raise GrammarError(f"The answer cannot go on by its grammar: {matcher.get_error()[:200]}")
        return bool(matcher.is_stopped())

    def read(self, tokens: Sequence[int]) -> None:
        """Takes note of those of ``tokens``, the sequence's so far, that are new. Raises GrammarError."""
        new = list(tokens[self._read :])
        if not new:
            return
        self._read = len(tokens)
        if not self.matcher.consume_tokens(new):
            raise GrammarError(f"The answer cannot go on by its grammar: {self.matcher.get_error()[:200]}")
        if len(new) < len(self._ahead) and self._ahead[-len(new) :] == new[::-1]:
            del self._ahead[-len(new) :]
        else:
            self._look_ahead()

    def allows(self, token: int) -> bool:
        """Whether ``token`` may come next. What has been read stays as it is."""
        return self.matcher.validate_tokens([token]) == 1

    def forced(self, most: int) -> list[int]:
        """Up to ``most`` of the tokens that come next whatever the model says: what must be written, as a tokenizer
        writes it."""
        return self._ahead[: -most - 1 : -1]

    def _look_ahead(self) -> None:
        # Once for a whole run: a long literal takes milliseconds, and would at each of its tokens.
        self._ahead = list(self.matcher.compute_ff_tokens())[::-1]


class GrammarCompiler:
    """For one tokenizer; from any thread."""

    def __init__(self, hub: Any, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        """``hub`` is a tokenizer of transformers; ``vocab_size`` the model's, which may be larger."""
        self._hub = hub
        self._vocab_size = vocab_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None  # takes a second to make, and few models ever need it
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def compile(self, grammar: Grammar, prompt_length: int) -> GrammarState:
        """The start of an answer. Raises RequestError that says what is wrong with the grammar."""
        if len(grammar.source) > MAX_GRAMMAR_CHARS:
            raise RequestError(f"A grammar has at most {MAX_GRAMMAR_CHARS} characters.", "grammar", "invalid_grammar")
        with self._lock:
            start = self._compiled.get(grammar)
            if start is not None:
                self._compiled.move_to_end(grammar)
        if start is None:
            start = self._build(grammar)
        return GrammarState(start.deep_copy(), prompt_length)

    def forget(self, grammar: Grammar) -> None:
        """An answer's place in it gave up: its copies share what they have learnt of it, and may give up as well."""
        with self._lock:
            self._compiled.pop(grammar, None)

    def _build(self, grammar: Grammar) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(**LIMITS)
        start = LLMatcher(self._vocabulary(), _definition(grammar), log_level=0, limits=limits)
        if start.is_error():
            raise RequestError(
                f"The {grammar.kind} cannot be used: {start.get_error()[:500]}", "grammar", "invalid_grammar"
            )
        with self._lock:
            self._compiled[grammar] = start
            if len(self._compiled) > MAX_CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
        return start

    def _vocabulary(self) -> LLTokenizer:
        from llguidance.hf import from_tokenizer

        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = from_tokenizer(self._hub, n_vocab=self._vocab_size, eos_token=self._eos_token_ids)
            return self._tokenizer


def forbid(logits: Tensor, rows: Sequence[tuple[int, GrammarState]]) -> dict[int, GrammarError]:
    """Sets ``logits`` [rows, vocab] float32 to -inf where the grammar of a row allows no token; rows whose grammar gave
    up come back with why.

    Of several ways to write what must be written the tokenizer's is taken, so that it need not be asked of the model;
    and it is taken whatever else the request forbids, so that it makes no difference whether it was asked.
    """
    free: list[tuple[int, GrammarState]] = []
    for row, state in rows:
        if forced := state.forced(1):
            own = float(logits[row, forced[0]])  # what it adds to the score of a beam
            logits[row] = -torch.inf
            logits[row, forced[0]] = own if math.isfinite(own) else 0.0
        else:
            free.append((row, state))
    if not free:
        return {}
    words = -(-logits.shape[1] // 32)
    bits = np.zeros((len(free), words), np.int32)
    matchers = [(state.matcher, place) for place, (_, state) in enumerate(free)]
    _executor().unsafe_compute_mask_ptr(matchers, bits.ctypes.data, words * 4, len(free))
    _fill(logits, [row for row, _ in free], np.bitwise_not(bits, out=bits))
    return {row: GrammarError(state.matcher.get_error()[:200]) for row, state in free if state.matcher.is_error()}


def _fill(logits: Tensor, rows: list[int], forbidden: NDArray[np.int32]) -> None:
    """-inf where the bits of ``forbidden`` [rows, words] are set. In place where that can be: a copy costs as much as
    all the rest."""
    told = np.unpackbits(forbidden.view(np.uint8), axis=1, bitorder="little", count=logits.shape[1]).view(np.bool_)
    mask = torch.from_numpy(told).to(logits.device)
    if rows == list(range(rows[0], rows[0] + len(rows))):
        logits[rows[0] : rows[0] + len(rows)].masked_fill_(mask, -torch.inf)
    else:
        for row, each in zip(rows, mask, strict=True):
            logits[row].masked_fill_(each, -torch.inf)


@cache
def _executor() -> LLExecutor:
    """Threads that compute masks side by side; one set for the process."""
    from llguidance import LLExecutor

    return LLExecutor()


def _definition(grammar: Grammar) -> str:
    """In llguidance's own language. Raises RequestError for JSON that is none."""
    from llguidance import LLMatcher

    try:
        if grammar.kind == "json_schema":
            return LLMatcher.grammar_from_json_schema(grammar.source, overrides=JSON_STYLE)
        if grammar.kind == "json_object":
            return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=JSON_STYLE)
    except ValueError as error:
        raise RequestError(f"The schema is no JSON: {error}", "grammar", "invalid_grammar") from None
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.source)
    if grammar.kind == "choice":
        choices = " | ".join(json.dumps(choice) for choice in json.loads(grammar.source))
        return LLMatcher.grammar_from_lark(f"start: {choices}")
    return LLMatcher.grammar_from_lark(grammar.source)
