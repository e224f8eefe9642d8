"""What guesses are worth: tokens a second with and without, and how many are right, at one request and at 32.

    python -m load_tests.decoding.speculation

Two kinds of text: answers to the held-out tasks, and text that repeats itself, which can be looked up. Three engines,
in turns: without guesses, with prompt lookup, and with a smaller model that guesses besides. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from engine import Engine, SamplingParams
from engine.api import Conversation, Prompt
from load_tests.quality.item import read_held_out
from load_tests.quality.options import HELD_OUT, MODELS

ANSWER = 96  # tokens
REPEATED = "The ship left the port at nine and came back at ten. "
KINDS = ("plain", "lookup", "draft")


def engines(model: Path, draft: Path, tokens: int, dtype: str) -> dict[str, Engine]:
    """One of each kind."""
    config = {"dtype": dtype, "kv_cache_tokens": 32_768, "prefix_caching": False}
    guesses = {**config, "speculative_tokens": tokens}
    return {
        "plain": Engine.from_pretrained(model, **config),
        "lookup": Engine.from_pretrained(model, **guesses),
        "draft": Engine.from_pretrained(model, **guesses, draft_model=str(draft)),
    }


def workloads(count: int) -> dict[str, list[Prompt]]:
    """Prompts by the kind of text that follows them."""
    items = [item for item in read_held_out(HELD_OUT).items if item.level == 3]
    return {
        "tasks": [Conversation(item.messages) for item in items[:: len(items) // count][:count]],
        "repetition": [f"{n} {REPEATED * 6}" for n in range(count)],
    }


def rate(engine: Engine, prompts: list[Prompt], temperature: float) -> tuple[float, float]:
    """Tokens a second, and tokens that a step brought each request."""
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=ANSWER, ignore_eos=True)
    steps, began = engine.stats().steps, time.perf_counter()
    given = [prompt if isinstance(prompt, str | Conversation) else list(prompt) for prompt in prompts]
    answers = engine.generate(given, params)
    tokens = sum(len(answer.token_ids) for answer in answers)
    return tokens / (time.perf_counter() - began), ANSWER / (engine.stats().steps - steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODELS / "frontier")
    parser.add_argument("--draft", type=Path, default=MODELS / "fast", help="the smaller model")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=5, help="most guesses in a step")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 32], help="at once")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    made = engines(options.model, options.draft, options.tokens, options.dtype)
    print("| text | temperature | requests | " + " | ".join(f"{kind}, tokens/s" for kind in KINDS), end=" | ")
    print("lookup over plain | draft over plain | tokens a step: lookup | draft |")
    print("| --- | ---: " + "| ---: " * 8 + "|")
    for name, prompts in workloads(32).items():
        for temperature in (0.0, 1.0):
            for requests in options.requests:
                found: dict[str, list[tuple[float, float]]] = defaultdict(list)
                for turn in tqdm(range(options.rounds + 1), desc=f"{name} {requests}", leave=False):
                    asked = prompts if requests > 1 else [prompts[turn % len(prompts)]]
                    for kind in KINDS:
                        found[kind].append(rate(made[kind], asked, temperature))
                warm = {kind: rates[1:] for kind, rates in found.items()}
                speed = {kind: statistics.median(each for each, _ in rates) for kind, rates in warm.items()}
                run = {kind: statistics.median(each for _, each in rates) for kind, rates in warm.items()}
                ratio = {
                    kind: statistics.median(a / b for (a, _), (b, _) in zip(warm[kind], warm["plain"], strict=True))
                    for kind in KINDS
                }
                cells = [f"{speed[kind]:,.0f}" for kind in KINDS]
                cells += [f"{ratio[kind]:.2f}" for kind in KINDS[1:]] + [f"{run[kind]:.2f}" for kind in KINDS[1:]]
                print(f"| {name} | {temperature} | {requests} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
