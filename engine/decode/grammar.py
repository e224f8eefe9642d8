"""Structured outputs: which tokens may come next, by llguidance (an Earley parser over a trie of the vocabulary).

A grammar is compiled once and kept; each sequence has a copy of it that has read the sequence's tokens. What is new is
tried in a sandbox first, and its first mask is computed on the thread that submits it: nothing of that is the work of
the engine's thread.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.api import MAX_GRAMMAR_CHARS, Grammar, OverloadedError, RequestError, UnsatisfiableError
from engine.decode.budget import SLOW_OPERATION_S, SLOW_ROW_S
from engine.decode.complaint import FAULTS, SLOW_ANSWER, TOO_COMPLEX, TOO_WIDE, sentence
from engine.decode.definition import define
from engine.decode.grammar_tokenizer import Vocabulary
from engine.decode.meter import CallClock, Meter
from engine.decode.sandbox import Sandbox, SandboxError
from engine.decode.trial import Verdict, new_matcher

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher, LLTokenizer

MAX_CACHED_GRAMMARS = 128  # compiled ones; and as many that were refused

logger = logging.getLogger(__name__)


class GrammarError(UnsatisfiableError):
    """A grammar gave up on a sequence: it is too complex or too slow, or the sequence's tokens do not follow it."""

    slow = False  # whether it used up a limit after slow steps: then the engine refuses it from here on


class GrammarState:
    """One sequence's place in its grammar; a function of the tokens of its answer."""

    def __init__(self, matcher: LLMatcher, prompt_length: int, grammar: Grammar, tokens: int, rows: int) -> None:
        """``matcher`` is at its start, and no other sequence uses it. Its masks are of ``tokens`` tokens; the model has
        logits for ``rows`` of them."""
        self.matcher = matcher
        self.tokens = tokens
        self._rows = rows
        self._grammar = grammar
        self._meter = Meter()
        self._read = prompt_length
        self._ahead: list[int] = []  # what must come next, as far as it is known, the next one last
        self._look_ahead()

    def copy(self) -> GrammarState:
        """Another at the same place, for a branch."""
        twin = object.__new__(GrammarState)
        twin.matcher, twin._read, twin._ahead = self.matcher.deep_copy(), self._read, list(self._ahead)
        twin.tokens, twin._rows, twin._grammar = self.tokens, self._rows, self._grammar
        twin._meter = self._meter
        return twin

    @property
    def complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    def completed_by(self, token: int) -> bool:
        """Whether nothing could follow ``token`` but the end. What has been read stays as it is. Raises GrammarError if
        it may not come next."""
        matcher = self.matcher.deep_copy()
        if not self._meter(lambda: matcher.consume_tokens([token])) or self._meter.exhausted:
            raise self._error(matcher)
        return bool(matcher.is_stopped())

    def read(self, tokens: Sequence[int]) -> None:
        """Takes note of those of ``tokens``, the sequence's so far, that are new. Raises GrammarError."""
        new = list(tokens[self._read :])
        if not new:
            return
        self._read = len(tokens)
        if not self._meter(lambda: self.matcher.consume_tokens(new), len(new)):
            raise self.error()
        if len(new) < len(self._ahead) and self._ahead[-len(new) :] == new[::-1]:
            del self._ahead[-len(new) :]
        else:
            self._look_ahead()
        if self._meter.exhausted:
            raise self.error()

    def allows(self, token: int) -> bool:
        """Whether ``token`` may come next. What has been read stays as it is."""
        return self._meter(lambda: self.matcher.validate_tokens([token])) == 1

    def forced(self, most: int) -> list[int]:
        """Up to ``most`` of the tokens that come next whatever the model says: what must be written, as a tokenizer
        writes it."""
        return self._ahead[: -most - 1 : -1]

    def _look_ahead(self) -> None:
        # Once for a whole run: a long literal takes milliseconds, and would at each of its tokens.
        forced = self._meter(self.matcher.compute_ff_tokens)
        if max(forced, default=0) >= self._rows:  # the tokenizer's spelling has a token that the model lacks
            forced = forced[: next(place for place, token in enumerate(forced) if token >= self._rows)]
        self._ahead = forced[::-1]

    def time_mask(self) -> None:
        """Computes the next mask once more, on this thread and its clock. What has been read stays as it is."""
        self._meter(self.matcher.deep_copy().compute_bitmask)

    @property
    def failed(self) -> bool:
        """Whether the grammar gave up, or has become too slow."""
        return self._meter.exhausted or self.matcher.is_error()

    def error(self) -> GrammarError:
        """Why the grammar gave up, if it did, or does not allow what was read."""
        return self._error(self.matcher)

    def _error(self, matcher: LLMatcher) -> GrammarError:
        grammar = self._grammar
        why = sentence(matcher.get_error(), quoting=not grammar.label)
        slow = self._meter.exhausted or (self._meter.slow_s > 0 and why in (TOO_WIDE, TOO_COMPLEX))
        error = GrammarError(
            f"The answer cannot go on by {_name(grammar, first=False)}: {SLOW_ANSWER if slow else why}"
        )
        error.slow = slow
        return error


class GrammarCompiler:
    """For one tokenizer; from any thread."""

    def __init__(self, hub: Any, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        """``hub`` is a tokenizer of transformers, or None: then every grammar is refused. ``vocab_size`` counts the
        tokens that the model has logits for."""
        self._hub = hub
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._sandbox: Sandbox | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._refused: OrderedDict[Grammar, Verdict] = OrderedDict()
        self._under_way: dict[Grammar, Future[None]] = {}

    def load(self) -> None:
        """Reads the vocabulary, while the model is loaded: that holds the interpreter's lock for up to two seconds, and
        would hold up all answers with the first grammar. Without llguidance, or for a tokenizer that it cannot
        read, the first grammar is refused instead."""
        try:
            self._load()
        except (ImportError, ValueError) as error:
            logger.warning("There will be no structured outputs: %s", error)

    def compile(self, grammar: Grammar, prompt_length: int) -> GrammarState:
        """The start of an answer. Raises RequestError that says what is wrong with the grammar, OverloadedError if it
        cannot be tried now."""
        start = self._start(grammar)
        tokens = self._load()[0].vocab_size
        return GrammarState(start.deep_copy(), prompt_length, grammar, tokens, self._vocab_size)

    def knows(self, grammar: Grammar) -> bool:
        """Whether ``compile`` would be quick, as the grammar has been compiled or refused before."""
        with self._lock:
            return grammar in self._compiled or grammar in self._refused

    def forget(self, grammar: Grammar, error: GrammarError) -> None:
        """Drops a compiled grammar that gave up on an answer: the copies of a matcher share a lexer, so others may give
        up as well. One that was slow is refused from here on."""
        with self._lock:
            self._compiled.pop(grammar, None)
        if error.slow:
            logger.warning("A grammar (%s) was too slow for an answer, and will be refused.", grammar.kind)
            self._keep(self._refused, grammar, Verdict(fault="slow answer"))

    def close(self) -> None:
        """Ends the process that tries grammars, if there is one. May be called again."""
        if self._sandbox is not None:
            self._sandbox.close()

    def _start(self, grammar: Grammar) -> LLMatcher:
        """A compiled grammar. Threads that need the same new one wait for the first of them. Raises as ``compile``
        does."""
        while True:
            with self._lock:
                start = self._compiled.get(grammar)
                if start is not None:
                    self._compiled.move_to_end(grammar)
                    return start
                under_way = self._under_way.get(grammar)
                if under_way is None:
                    own = self._under_way[grammar] = Future[None]()
            if under_way is None:
                return self._build_once(grammar, own)
            under_way.result()  # a refusal is raised anew: it names the field of its own request

    def _build_once(self, grammar: Grammar, done: Future[None]) -> LLMatcher:
        """Builds a grammar, and then wakes those that wait for ``done``. They fail with it if it could not be tried."""
        overload: OverloadedError | None = None
        try:
            return self._build(grammar)
        except OverloadedError as error:
            overload = error
            raise
        finally:
            with self._lock:
                del self._under_way[grammar]
            if overload is None:
                done.set_result(None)
            else:
                done.set_exception(overload)

    def _build(self, grammar: Grammar) -> LLMatcher:
        """Tries a grammar, compiles it, and computes its first mask. Raises as ``compile`` does."""
        if len(grammar.source) > MAX_GRAMMAR_CHARS:
            raise _refusal(grammar, f"it has more than {MAX_GRAMMAR_CHARS} characters.")
        with self._lock:
            refused = self._refused.get(grammar)
        if refused is not None:
            raise _refusal(grammar, _why(grammar, refused))
        try:
            tokenizer, sandbox = self._load()
        except (ImportError, ValueError) as error:
            logger.warning("There are no structured outputs: %s", error)
            raise _refusal(grammar, "structured outputs are not available for this model.") from None
        try:
            definition = define(grammar)
        except ValueError as error:
            raise _refusal(grammar, str(error)) from None
        verdict = self._try(grammar, definition, sandbox)
        if verdict.usable:
            start = new_matcher(tokenizer, definition)
            start.compute_bitmask()  # kept by all its copies; releases the interpreter's lock
            if not start.is_error():
                self._keep(self._compiled, grammar, start)
                return start
            verdict = Verdict(start.get_error())
        self._keep(self._refused, grammar, verdict)
        if verdict.fault or "panic" in verdict.complaint:
            logger.warning("A grammar (%s) was refused: %s", grammar.kind, verdict.fault or "llguidance panicked")
        raise _refusal(grammar, _why(grammar, verdict))

    def _try(self, grammar: Grammar, definition: str, sandbox: Sandbox) -> Verdict:
        """Raises OverloadedError if there is no verdict."""
        if grammar.kind == "json_object":
            return Verdict()  # the definition is ours, and always the same
        try:
            return sandbox.attempt(definition)
        except SandboxError as error:
            logger.warning("A grammar could not be tried: %s", error)
            raise OverloadedError("Grammars cannot be compiled at the moment.") from error

    def _keep(self, kept: OrderedDict[Grammar, Any], grammar: Grammar, what: object) -> None:
        with self._lock:
            kept[grammar] = what
            if len(kept) > MAX_CACHED_GRAMMARS:
                kept.popitem(last=False)

    def _load(self) -> tuple[LLTokenizer, Sandbox]:
        if self._hub is None:
            raise ValueError("the model has no tokenizer")
        with self._loading:
            if self._tokenizer is None or self._sandbox is None:
                vocabulary = Vocabulary.of(self._hub, self._vocab_size, self._eos_token_ids)
                self._tokenizer = vocabulary.load()
                self._sandbox = Sandbox(vocabulary)
            return self._tokenizer, self._sandbox


def _why(grammar: Grammar, verdict: Verdict) -> str:
    if verdict.fault:
        return FAULTS[verdict.fault]
    return sentence(verdict.complaint, quoting=not grammar.label)


def _refusal(grammar: Grammar, why: str) -> RequestError:
    """In the name of the field that this request's grammar came from."""
    return RequestError(f"{_name(grammar, first=True)} cannot be used: {why}", grammar.param, "invalid_grammar")


def _name(grammar: Grammar, first: bool) -> str:
    """What messages call the grammar, at the start of a sentence or within it."""
    name = grammar.label or f"The {grammar.kind}"
    return name if first else name[:1].lower() + name[1:]


def forbid(logits: Tensor, rows: Sequence[tuple[int, GrammarState]]) -> dict[int, GrammarError]:
    """Sets ``logits`` [rows, vocab] float32 to -inf for the tokens that the grammars of ``rows`` do not allow next.
    Returns a GrammarError for each row whose grammar gave up.

    Where the grammar leaves one text only, the tokenizer's spelling of it is the only one allowed. The other rules of
    the request do not apply to forced tokens: ``Job.accept`` adds them to an answer without logits, and the result must
    be the same either way.
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
    words = -(-free[0][1].tokens // 32)
    bits = np.zeros((len(free), words), np.int32)
    matchers = [(state.matcher, place) for place, (_, state) in enumerate(free)]
    clock = CallClock()
    _executor().unsafe_compute_mask_ptr(matchers, bits.ctypes.data, words * 4, len(free))
    if clock.exceeds(SLOW_OPERATION_S + SLOW_ROW_S * len(free)):
        for _, state in free:
            state.time_mask()
    _fill(logits, [row for row, _ in free], np.bitwise_not(bits, out=bits))
    return {row: state.error() for row, state in free if state.failed}


def _fill(logits: Tensor, rows: list[int], forbidden: NDArray[np.int32]) -> None:
    """-inf where the bits of ``forbidden`` [rows, words] are set. In place where that can be: a copy costs as much as
    all the rest."""
    flags = np.unpackbits(forbidden.view(np.uint8), axis=1, bitorder="little", count=logits.shape[1]).view(np.bool_)
    mask = torch.from_numpy(flags).to(logits.device)
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
