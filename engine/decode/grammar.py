"""Structured output with llguidance (an Earley parser over a trie of the vocabulary): which tokens a grammar allows
next.

A grammar is compiled once and cached. Each sequence has a copy that has read the sequence's tokens. A new grammar is
first tried in a sandbox. Trial, compilation and the first token mask run on the thread that submits the request, not on
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

    from engine.hub_tokenizer import HubTokenizer

MAX_CACHED_GRAMMARS = 128  # most compiled grammars that are cached, and most refused ones

logger = logging.getLogger(__name__)


class GrammarError(UnsatisfiableError):
    """A grammar cannot continue a sequence: it is too complex or too slow, or does not allow the sequence's tokens."""

    slow = False  # whether its operations were too slow; the engine then refuses the grammar from now on


class GrammarState:
    """The state of one sequence's grammar (vLLM's ``StructuredOutputGrammar``). It is a function of the answer's
    tokens."""

    def __init__(self, matcher: LLMatcher, prompt_length: int, grammar: Grammar, tokens: int, rows: int) -> None:
        """``matcher`` is in its initial state and belongs to this sequence alone. Its masks have ``tokens`` bits; the
        model has logits for ``rows`` of these tokens."""
        self.matcher = matcher
        self.tokens = tokens
        self._rows = rows
        self._grammar = grammar
        self._meter = Meter()
        self._read = prompt_length
        self._ahead: list[int] = []  # the forced tokens that come next, in reverse order
        self._look_ahead()

    def copy(self) -> GrammarState:
        """Returns a copy in the same state, for another choice or beam. Both count against the same time limits."""
        twin = object.__new__(GrammarState)
        twin.matcher, twin._read, twin._ahead = self.matcher.deep_copy(), self._read, list(self._ahead)
        twin.tokens, twin._rows, twin._grammar = self.tokens, self._rows, self._grammar
        twin._meter = self._meter
        return twin

    @property
    def complete(self) -> bool:
        """Whether the grammar is completed: only the end of the answer may follow."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    def completed_by(self, token: int) -> bool:
        """Returns whether ``token`` would complete the grammar. Does not change the state. Raises GrammarError if the
        grammar does not allow the token."""
        matcher = self.matcher.deep_copy()
        if not self._meter(lambda: matcher.consume_tokens([token])) or self._meter.exhausted:
            raise self._error(matcher)
        return bool(matcher.is_stopped())

    def read(self, tokens: Sequence[int]) -> None:
        """Reads those of ``tokens``, the sequence's tokens so far, that it has not read yet. Raises GrammarError if the
        grammar does not allow them or is too slow."""
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
        """Returns whether the grammar allows ``token`` next. Does not change the state."""
        return self._meter(lambda: self.matcher.validate_tokens([token])) == 1

    def forced(self, most: int) -> list[int]:
        """Returns up to ``most`` forced tokens (jump-forward decoding): the tokenizer's encoding of the text that the
        grammar requires next, whatever the model's logits are."""
        return self._ahead[: -most - 1 : -1]

    def _look_ahead(self) -> None:
        """Computes the forced tokens. They are kept until the answer differs from them, because for a long literal
        computing them takes milliseconds."""
        forced = self._meter(self.matcher.compute_ff_tokens)
        if max(forced, default=0) >= self._rows:  # the tokenizer has a token without logits
            forced = forced[: next(place for place, token in enumerate(forced) if token >= self._rows)]
        self._ahead = forced[::-1]

    def time_mask(self) -> None:
        """Computes the next token mask once more on this thread, to measure its time. Does not change the state."""
        self._meter(self.matcher.deep_copy().compute_bitmask)

    @property
    def failed(self) -> bool:
        """Whether the grammar is in error or has used up its time limits."""
        return self._meter.exhausted or self.matcher.is_error()

    def error(self) -> GrammarError:
        """Returns the error that says why the grammar cannot continue."""
        return self._error(self.matcher)

    def _error(self, matcher: LLMatcher) -> GrammarError:
        """Returns the error for ``matcher``, with a message for the client."""
        grammar = self._grammar
        why = sentence(matcher.get_error(), quoting=not grammar.label)
        slow = self._meter.exhausted or (self._meter.slow_s > 0 and why in (TOO_WIDE, TOO_COMPLEX))
        error = GrammarError(
            f"The answer cannot go on by {_name(grammar, first=False)}: {SLOW_ANSWER if slow else why}"
        )
        error.slow = slow
        return error


class GrammarCompiler:
    """Compiles and caches grammars for one tokenizer (vLLM's ``StructuredOutputManager``). May be used from any
    thread."""

    def __init__(self, hub: HubTokenizer | None, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        """``hub`` None: every grammar is refused. ``vocab_size`` is the number of tokens that the model has logits
        for."""
        self._hub = hub
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._sandbox: Sandbox | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._refused: OrderedDict[Grammar, Verdict] = OrderedDict()
        self._under_way: dict[Grammar, Future[None]] = {}  # grammars that a thread compiles now

    def load(self) -> None:
        """Loads the vocabulary. Called while the engine starts, because it holds the interpreter's lock for up to two
        seconds and would delay all answers if the first grammar did it. If llguidance is missing or cannot read the
        tokenizer, only logs a warning; every grammar is refused then."""
        try:
            self._load()
        except (ImportError, ValueError) as error:
            logger.warning("There will be no structured outputs: %s", error)

    def compile(self, grammar: Grammar, prompt_length: int) -> GrammarState:
        """Returns the state of an answer that follows ``grammar`` after ``prompt_length`` tokens. Raises RequestError,
        whose message describes the fault of the grammar, or OverloadedError if it cannot be tried out at the moment."""
        start = self._start(grammar)
        tokens = self._load()[0].vocab_size
        return GrammarState(start.deep_copy(), prompt_length, grammar, tokens, self._vocab_size)

    def knows(self, grammar: Grammar) -> bool:
        """Returns whether the grammar has been compiled or refused before, so that ``compile`` is quick."""
        with self._lock:
            return grammar in self._compiled or grammar in self._refused

    def forget(self, grammar: Grammar, error: GrammarError) -> None:
        """Removes a compiled grammar that failed with ``error`` on an answer, because the copies of a matcher share a
        lexer and others may fail too. A grammar that was too slow is refused from now on."""
        with self._lock:
            self._compiled.pop(grammar, None)
        if error.slow:
            logger.warning("A grammar (%s) was too slow for an answer, and will be refused.", grammar.kind)
            self._keep(self._refused, grammar, Verdict(fault="slow answer"))

    def close(self) -> None:
        """Ends the process that tries out grammars, if there is one. May be called again."""
        if self._sandbox is not None:
            self._sandbox.close()

    def _start(self, grammar: Grammar) -> LLMatcher:
        """Returns the compiled grammar in its initial state. Threads that need the same new grammar wait for the one
        that compiles it. Raises as ``compile`` does."""
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
            under_way.result()  # then looks again; a refusal is made for each request, since it names its field

    def _build_once(self, grammar: Grammar, done: Future[None]) -> LLMatcher:
        """Compiles a grammar, then wakes the threads that wait for ``done``. If it could not be tried out, they fail
        with the same OverloadedError."""
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
        """Tries out a grammar, compiles it, and computes its first token mask. Raises as ``compile`` does."""
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
            start.compute_bitmask()  # all copies keep this mask; releases the interpreter's lock
            if not start.is_error():
                self._keep(self._compiled, grammar, start)
                return start
            verdict = Verdict(start.get_error())
        self._keep(self._refused, grammar, verdict)
        if verdict.fault or "panic" in verdict.complaint:
            logger.warning("A grammar (%s) was refused: %s", grammar.kind, verdict.fault or "llguidance panicked")
        raise _refusal(grammar, _why(grammar, verdict))

    def _try(self, grammar: Grammar, definition: str, sandbox: Sandbox) -> Verdict:
        """Tries out a grammar in the sandbox. Raises OverloadedError if that gives no verdict."""
        if grammar.kind == "json_object":
            return Verdict()  # the definition is always the same, and known to be harmless
        try:
            return sandbox.attempt(definition)
        except SandboxError as error:
            logger.warning("A grammar could not be tried: %s", error)
            raise OverloadedError("Grammars cannot be compiled at the moment.") from error

    def _keep(self, kept: OrderedDict[Grammar, Any], grammar: Grammar, what: object) -> None:
        """Adds a grammar to a cache, and removes the oldest one if there are too many."""
        with self._lock:
            kept[grammar] = what
            if len(kept) > MAX_CACHED_GRAMMARS:
                kept.popitem(last=False)

    def _load(self) -> tuple[LLTokenizer, Sandbox]:
        """Returns llguidance's tokenizer and the sandbox, made on the first call. Raises ImportError without llguidance
        and ValueError for a missing or unsupported tokenizer."""
        if self._hub is None:
            raise ValueError("the model has no tokenizer")
        with self._loading:
            if self._tokenizer is None or self._sandbox is None:
                vocabulary = Vocabulary.of(self._hub, self._vocab_size, self._eos_token_ids)
                self._tokenizer = vocabulary.load()
                self._sandbox = Sandbox(vocabulary)
            return self._tokenizer, self._sandbox


def _why(grammar: Grammar, verdict: Verdict) -> str:
    """Returns the sentence that says why a grammar was refused."""
    if verdict.fault:
        return FAULTS[verdict.fault]
    return sentence(verdict.complaint, quoting=not grammar.label)


def _refusal(grammar: Grammar, why: str) -> RequestError:
    """Returns a RequestError that names the field which this request's grammar came from."""
    return RequestError(f"{_name(grammar, first=True)} cannot be used: {why}", grammar.param, "invalid_grammar")


def _name(grammar: Grammar, first: bool) -> str:
    """Returns what messages call the grammar; ``first``: at the start of a sentence."""
    name = grammar.label or f"The {grammar.kind}"
    return name if first else name[:1].lower() + name[1:]


def forbid(logits: Tensor, rows: Sequence[tuple[int, GrammarState]]) -> dict[int, GrammarError]:
    """Sets ``logits`` [rows, vocab] float32 to -inf, in place, for the tokens that the grammars of ``rows`` do not
    allow next. Returns a GrammarError for each row whose grammar failed.

    Where the grammar forces the text, only the tokenizer's encoding of it is allowed, and the request's other rules do
    not apply to that token: ``Job.accept`` appends forced tokens without logits, and the answer must be the same either
    way.
    """
    free: list[tuple[int, GrammarState]] = []
    for row, state in rows:
        if forced := state.forced(1):
            own = float(logits[row, forced[0]])  # counts for the score of a beam
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
    """Sets ``logits`` to -inf where the bits of ``forbidden`` [rows, words] are set. Adjacent rows are changed in
    place, because a copy would cost as much as everything else."""
    flags = np.unpackbits(forbidden.view(np.uint8), axis=1, bitorder="little", count=logits.shape[1]).view(np.bool_)
    mask = torch.from_numpy(flags).to(logits.device)
    if rows == list(range(rows[0], rows[0] + len(rows))):
        logits[rows[0] : rows[0] + len(rows)].masked_fill_(mask, -torch.inf)
    else:
        for row, each in zip(rows, mask, strict=True):
            logits[row].masked_fill_(each, -torch.inf)


@cache
def _executor() -> LLExecutor:
    """Returns the threads that compute token masks in parallel, one pool per process."""
    from llguidance import LLExecutor

    return LLExecutor()
