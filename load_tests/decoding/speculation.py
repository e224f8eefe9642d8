"""What guesses are worth: tokens a second with and without, and how many are right, at one request and at 32.

    python -m load_tests.decoding.speculation
    python -m load_tests.decoding.speculation --model MODEL.gguf --draft none --texts questions rewriting repetition

Kinds of text: answers to the held-out tasks; answers to open questions; a text given back with a word replaced, most of
which can be looked up; and text that repeats itself. Engines in turns: without guesses, with prompt lookup, and with a
smaller model that guesses besides. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from engine import Engine, SamplingParams
from engine.api import Conversation, Message, Prompt
from load_tests.quality.item import read_held_out
from load_tests.quality.open_questions.question import read_open_questions
from load_tests.quality.options import HELD_OUT, MODELS, OPEN_QUESTIONS

ANSWER = 96  # tokens
REPEATED = "The ship left the port at nine and came back at ten. "
PASSAGE = (
    "The garden behind the old library is open to everyone. In spring the volunteers plant beans, peas and lettuce, "
    "and in autumn they share what has grown. A wooden bench near the gate was built by pupils of the school next door."
)
REPLACED = ("garden", "library", "spring", "volunteers", "beans", "autumn", "bench", "gate", "pupils", "school")


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the prompts: tokens a second, and tokens that a step brought each request."""

    tokens_per_s: float
    tokens_per_step: float


def engines(model: Path, draft: Path | None, tokens: int, dtype: str) -> dict[str, Engine]:
    """One of each kind, ``draft`` only where there is a smaller model."""
    config = {"dtype": dtype, "kv_cache_tokens": 32_768, "prefix_caching": False}
    guesses = {**config, "speculative_tokens": tokens}
    made = {"plain": Engine.from_pretrained(model, **config), "lookup": Engine.from_pretrained(model, **guesses)}
    if draft is not None:
        made["draft"] = Engine.from_pretrained(model, **guesses, draft_model=str(draft))
    return made


def tasks(count: int) -> list[Prompt]:
    """Held-out tasks of the highest level."""
    items = [item for item in read_held_out(HELD_OUT).items if item.level == 3]
    return [Conversation(item.messages) for item in items[:: len(items) // count][:count]]


def questions(count: int) -> list[Prompt]:
    """Open questions."""
    items = read_open_questions(OPEN_QUESTIONS).items
    return [Conversation(item.messages) for item in items[:: len(items) // count][:count]]


def rewriting(count: int) -> list[Prompt]:
    """A text that is to be given back with one word replaced."""
    asked = "Rewrite this text and replace the word '{}' by 'house {}':\n\n{}"
    texts = [asked.format(REPLACED[n % len(REPLACED)], n, PASSAGE) for n in range(count)]
    return [Conversation((Message("user", text),)) for text in texts]


def repetition(count: int) -> list[Prompt]:
    """A text that has begun to repeat itself."""
    return [f"{n} {REPEATED * 6}" for n in range(count)]


TEXTS: Mapping[str, Callable[[int], list[Prompt]]] = {
    "tasks": tasks,
    "questions": questions,
    "rewriting": rewriting,
    "repetition": repetition,
}


def run(engine: Engine, prompts: Sequence[Prompt], temperature: float) -> Run:
    """Answers ``prompts`` at once, each with ``ANSWER`` tokens."""
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=ANSWER, ignore_eos=True)
    steps, began = engine.stats().steps, time.perf_counter()
    given = [prompt if isinstance(prompt, str | Conversation) else list(prompt) for prompt in prompts]
    answers = engine.generate(given, params)
    tokens = sum(len(answer.token_ids) for answer in answers)
    return Run(tokens / (time.perf_counter() - began), ANSWER / (engine.stats().steps - steps))


def in_turns(
    made: Mapping[str, Engine], prompts: Sequence[Prompt], temperature: float, requests: int, rounds: int
) -> dict[str, list[Run]]:
    """The runs of each engine; the first round warms up and does not count."""
    found: dict[str, list[Run]] = defaultdict(list)
    for turn in tqdm(range(rounds + 1), desc=f"{requests} requests", leave=False):
        asked = prompts[:requests] if requests > 1 else [prompts[turn % len(prompts)]]
        for kind, engine in made.items():
            found[kind].append(run(engine, asked, temperature))
    return {kind: runs[1:] for kind, runs in found.items()}


def row(found: Mapping[str, Sequence[Run]]) -> list[str]:
    """Tokens a second of each engine, those of the guessing ones over plain, and their tokens a step."""
    guessing = [kind for kind in found if kind != "plain"]
    speeds = [f"{statistics.median(each.tokens_per_s for each in runs):,.0f}" for runs in found.values()]
    ratios = [
        statistics.median(a.tokens_per_s / b.tokens_per_s for a, b in zip(found[kind], found["plain"], strict=True))
        for kind in guessing
    ]
    steps = [statistics.median(each.tokens_per_step for each in found[kind]) for kind in guessing]
    return speeds + [f"{value:.2f}" for value in ratios + steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODELS / "frontier")
    parser.add_argument("--draft", default=str(MODELS / "fast"), help="the smaller model, or none (default: fast)")
    parser.add_argument("--texts", nargs="+", choices=list(TEXTS), default=["tasks", "repetition"])
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=5, help="most guesses in a step")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 32], help="at once, at most 32")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    draft = None if options.draft == "none" else Path(options.draft)
    made = engines(options.model, draft, options.tokens, options.dtype)
    guessing = [kind for kind in made if kind != "plain"]
    columns = [f"{kind}, tokens/s" for kind in made]
    columns += [f"{kind} over plain" for kind in guessing] + [f"tokens a step: {kind}" for kind in guessing]
    print(f"| text | temperature | requests | {' | '.join(columns)} |")
    print("| --- " + "| ---: " * (2 + len(columns)) + "|")
    for name in options.texts:
        for temperature in (0.0, 1.0):
            for requests in options.requests:
                found = in_turns(made, TEXTS[name](32), temperature, requests, options.rounds)
                print(f"| {name} | {temperature} | {requests} | {' | '.join(row(found))} |", flush=True)


if __name__ == "__main__":
    main()
