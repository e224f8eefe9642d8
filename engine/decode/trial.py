"""The trial of a grammar: it is compiled, and its first steps are walked, with a clock beside each operation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from engine.decode.budget import MAX_STEP_S, PARSER_LIMITS

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

WALKS, WALK_TOKENS = 4, 12
MAX_WALK_S = 0.1  # CPU seconds, after the first step

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


Fault = Literal["", "died", "slow", "slow step", "slow answer"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``complaint`` is llguidance's own text, empty for a grammar that it takes. ``fault``: it needs more stack or
    memory than there may be (``died``), takes too long to compile (``slow``), an operation of a step takes longer than
    ``MAX_STEP_S`` (``slow step``), or an answer by it took too long (``slow answer``)."""

    complaint: str = ""
    fault: Fault = ""

    @property
    def usable(self) -> bool:
        """Whether the engine may compile the grammar."""
        return not (self.complaint or self.fault)


class _Clock:
    """CPU seconds of single operations on this thread."""

    def __init__(self) -> None:
        self.total = 0.0
        self.longest = 0.0

    def __call__(self, operation: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        began = time.thread_time()
        result = operation(*args, **kwargs)
        took = time.thread_time() - began
        self.total += took
        self.longest = max(self.longest, took)
        return result


def new_matcher(tokenizer: LLTokenizer, definition: str) -> LLMatcher:
    """A compiled grammar at its start; it may be in error. Releases the interpreter's lock while it compiles."""
    from llguidance import LLMatcher, LLParserLimits

    return LLMatcher(tokenizer, definition, log_level=0, limits=LLParserLimits(**PARSER_LIMITS))


def attempt(tokenizer: LLTokenizer, definition: str) -> Verdict:
    """Compiles ``definition``, computes its first mask, and walks some tokens of a few answers, drawn with a fixed
    seed. May end the process: llguidance goes down by recursion without a limit of its own."""
    start = new_matcher(tokenizer, definition)
    if start.is_error():
        return Verdict(start.get_error())
    clock = _Clock()
    clock(start.compute_ff_tokens)
    clock(start.compute_bitmask)
    if start.is_error():
        return Verdict(start.get_error())
    walked, draws = _Clock(), random.Random(0)
    for _ in range(WALKS):
        complaint = _walk(start.deep_copy(), tokenizer, walked, draws)
        if complaint:
            return Verdict(complaint)
        if max(clock.longest, walked.longest) > MAX_STEP_S:
            return Verdict(fault="slow step")
        if walked.total > MAX_WALK_S:
            break
    return Verdict()


def _walk(matcher: LLMatcher, tokenizer: LLTokenizer, clock: _Clock, draws: random.Random) -> str:
    """Reads tokens as a sequence would. Returns why the grammar gave up, if it did."""
    for _ in range(WALK_TOKENS):
        if forced := clock(matcher.compute_ff_tokens):
            clock(matcher.consume_tokens, forced)
        if matcher.is_stopped() or clock.total > MAX_WALK_S:
            break
        token = _allowed(clock(matcher.compute_bitmask), draws)
        if token is None or token in tokenizer.eos_tokens:
            break
        clock(matcher.consume_token, token)
    return matcher.get_error() if matcher.is_error() else ""


def _allowed(mask: bytes, draws: random.Random) -> int | None:
    """One of the tokens whose bits are set in ``mask``, the first token's bit being the lowest of the first byte."""
    first = draws.randrange(len(mask))
    turned = mask[first:] + mask[:first]
    left = turned.lstrip(b"\0")
    if not left:
        return None
    place = (first + len(turned) - len(left)) % len(mask)
    bits = [bit for bit in range(8) if left[0] >> bit & 1]
    return 8 * place + draws.choice(bits)
