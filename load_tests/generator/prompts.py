"""What the generator asks: a file of prompts, or 64 built-in ones of ragged lengths."""

from __future__ import annotations

import json
import random
from pathlib import Path

QUESTIONS = (
    "What is {a} + {b}?",
    "Write a short poem about the {x}.",
    "Explain to a child how a {x} works.",
    "List {a} uses of a {x}, one per line.",
    "Translate 'the {x} is by the {y}' into French.",
    "Compare a {x} with a {y} in one sentence.",
    "Tell me a story in which a {x} meets a {y}.",
    "Write a Python function that sorts {a} numbers.",
)
NOUNS = ("lighthouse", "compass", "bicycle", "telescope", "violin", "kettle", "glacier", "library", "market", "engine")
COUNT = 64


def builtin_prompts() -> list[str]:
    """64 distinct prompts, always the same. Every other one starts with some background, up to about 1,000 characters.

    Lengths differ on purpose: neighbours in a batch then finish prefill, and cross block borders, at different steps.
    """
    draw = random.Random(64)
    prompts = []
    for index in range(COUNT):
        x, y = draw.sample(NOUNS, 2)
        question = QUESTIONS[index % len(QUESTIONS)].format(a=index + 2, b=draw.randint(2, 99), x=x, y=y)
        facts = [f"The {draw.choice(NOUNS)} number {draw.randint(1, 999)} is old." for _ in range(draw.randint(0, 32))]
        prompts.append(" ".join([*facts, question]) if index % 2 else f"({index + 1}) {question}")
    return prompts


def read_prompts(path: Path) -> list[str]:
    """One prompt per line: plain text, or JSON objects with ``prompt`` in a .jsonl file.

    Raises ValueError, naming the line, for a row without a prompt, and for a file without any.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no prompts")
    if path.suffix != ".jsonl":
        return lines
    prompts = []
    for number, line in enumerate(lines, 1):
        row = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise ValueError(f"{path}:{number} has no string 'prompt'")
        prompts.append(row["prompt"])
    return prompts
