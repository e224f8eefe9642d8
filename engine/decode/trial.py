"""The trial of a grammar: compiles it and walks through its first steps, measuring the time of each operation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from engine.decode.budget import MAX_STEP_S, PARSER_LIMITS

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

WALKS, WALK_TOKENS = 4, 12  # random answers that are tried, and most tokens of each
MAX_WALK_S = 0.1  # CPU seconds of all walks

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


Fault = Literal["", "died", "slow", "slow step", "slow answer"]
"""What a trial may find wrong with a grammar, beside errors that llguidance reports; ``Verdict`` explains them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a trial. ``complaint`` is llguidance's error message, empty if it accepts the grammar. ``fault`` is
    empty or one of these:

    * ``died``: the grammar needs more stack or memory than the limits allow.
    * ``slow``: compiling takes too long.
    * ``slow step``: an operation of a step takes longer than ``MAX_STEP_S``.
    * ``slow answer``: an answer with this grammar took too long in the engine.
    """

    complaint: str = ""
    fault: Fault = ""

    @property
    def usable(self) -> bool:
        """Whether the engine may compile the grammar."""
        return not (self.complaint or self.fault)


class _Clock:
    """Measures the CPU seconds of operations on this thread: of all together, and of the longest."""

    def __init__(self) -> None:
        self.total = 0.0
        self.longest = 0.0

    def __call__(self, operation: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        """Runs an operation and returns its result."""
        began = time.thread_time()
        result = operation(*args, **kwargs)
        took = time.thread_time() - began
        self.total += took
        self.longest = max(self.longest, took)
        return result


def new_matcher(tokenizer: LLTokenizer, definition: str) -> LLMatcher:
    """Returns a compiled grammar in its initial state, which may be an error state. Releases the interpreter's lock
    while it compiles."""
    from llguidance import LLMatcher, LLParserLimits

    return LLMatcher(tokenizer, definition, log_level=0, limits=LLParserLimits(**PARSER_LIMITS))


def attempt(tokenizer: LLTokenizer, definition: str) -> Verdict:
    """Compiles ``definition``, computes its first token mask, and walks through a few answers drawn with a fixed seed.
    May crash the process, because llguidance uses unlimited recursion."""
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
    """Reads randomly drawn tokens that the grammar allows. Returns llguidance's error message, empty if there is
    none."""
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
    """Returns a randomly drawn token that ``mask`` allows, or None if there is none. Bit i of byte n stands for token 8
    n + i."""
    first = draws.randrange(len(mask))
    turned = mask[first:] + mask[:first]
    left = turned.lstrip(b"\0")
    if not left:
        return None
    place = (first + len(turned) - len(left)) % len(mask)
    bits = [bit for bit in range(8) if left[0] >> bit & 1]
    return 8 * place + draws.choice(bits)
