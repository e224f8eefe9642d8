"""What engines are compared on, and the clock that all of them share.

An engine's bench answers cases: those of its command line, or, if it has none, those that come over its standard input,
one a line, so that the benches of several engines can stay loaded and take turns. It prints a line for each.

Imports the standard library alone: the peers' benches run in environments of their own.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

PROMPT, ANSWER = 64, 64  # tokens of a case that names requests alone
WARM_PROMPT, WARM_ANSWER = 64, 4  # tokens of the run before the clock starts
LEAST_S = 1.0  # of a case that is measured
READY = "ready"
LINE = re.compile(r"\bn (\S+) (?:out|prompt) tok/s ([\d.]+)")

Prompts = list[list[int]]
Generate = Callable[[Prompts, int], int]
"""Answers prompts at once, greedily, with as many tokens each as the second argument says, and no end before that.
Returns the number of tokens of all answers."""


@dataclass(frozen=True, slots=True)
class Case:
    """``requests`` at once, each with ``prompt`` tokens in and ``answer`` out. An answer of one token measures prompts:
    then prompt tokens count, else output tokens."""

    requests: int
    prompt: int = PROMPT
    answer: int = ANSWER

    @classmethod
    def parse(cls, text: str) -> Case:
        """``8``: eight requests of 64 tokens in and 64 out. ``8:512``: eight prompts of 512 tokens, one token out.

        Raises ValueError.
        """
        requests, colon, prompt = text.strip().partition(":")
        case = cls(int(requests), int(prompt), 1) if colon else cls(int(requests))
        if case.requests < 1 or case.prompt < 1:
            raise ValueError(f"a case needs at least one request of one token, got {text!r}")
        return case

    def __str__(self) -> str:
        return f"{self.requests}:{self.prompt}" if self.counts_prompts else str(self.requests)

    @property
    def counts_prompts(self) -> bool:
        """Whether the rate is that of prompt tokens."""
        return self.answer == 1

    @property
    def counted(self) -> int:
        """Tokens that a run counts."""
        return self.requests * (self.prompt if self.counts_prompts else self.answer)

    def prompts(self, draw: random.Random) -> Prompts:
        """Token ids that both shapes have."""
        return [[draw.randrange(5, 8000) for _ in range(self.prompt)] for _ in range(self.requests)]


def rate(case: Case, generate: Generate, draw: random.Random, least_s: float = LEAST_S) -> float:
    """Tokens a second, from the start of a batch to its last token: the median of the runs that fit ``least_s``, one at
    least. Every run has prompts of its own. A short run goes before them. Raises RuntimeError if tokens are missing."""
    short = Case(case.requests, min(case.prompt, WARM_PROMPT))
    generate(short.prompts(draw), min(case.answer, WARM_ANSWER))
    seconds: list[float] = []
    end = time.perf_counter() + least_s
    while not seconds or time.perf_counter() < end:
        prompts = case.prompts(draw)
        began = time.perf_counter()
        tokens = generate(prompts, case.answer)
        seconds.append(time.perf_counter() - began)
        if tokens != case.requests * case.answer:
            raise RuntimeError(f"{tokens} tokens where {case.requests} x {case.answer} are due")
    return case.counted / statistics.median(seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that all benches have."""
    parser.add_argument("model", help="a directory or a file")
    parser.add_argument("cases", type=Case.parse, nargs="*", help="8: 64 tokens in and 64 out; 8:512: one token out")


def bench(engine: str, options: argparse.Namespace, prepare: Callable[[Case], Generate]) -> None:
    """Measures the cases of ``options`` on an engine that is loaded. ``prepare`` is called before the clock starts."""
    draw = random.Random(0)
    seen: set[Case] = set()
    for case in options.cases or asked():
        generate = prepare(case)
        if case not in seen:  # buffers grow, and what is compiled is compiled
            generate(case.prompts(draw), min(case.answer, WARM_ANSWER))
            seen.add(case)
        unit = "prompt" if case.counts_prompts else "out"
        print(f"{engine} {options.model} n {case} {unit} tok/s {rate(case, generate, draw):.1f}", flush=True)


def asked(lines: Iterable[str] = sys.stdin) -> Iterator[Case]:
    """The cases that come over standard input, after a line that says that the engine is loaded."""
    print(READY, flush=True)
    for line in lines:
        yield Case.parse(line)
