"""Open requests in written wordings, about sentences that others wrote; and conversations of several open turns."""

from __future__ import annotations

import csv
import gzip
import json
import random
import zlib
from collections.abc import Sequence
from pathlib import Path

from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.curriculum.words import split
from deployments.models.training.routing.everyday_questions import NOUNS
from deployments.models.training.routing.open_prompts import OPEN
from deployments.models.training.routing.wordings import read_wordings

SENTENCES = ("cache/paws.jsonl.gz", "cache/cannot_negation.jsonl.gz")
SENTENCE_PAIRS = "cache/stsb_train.csv.gz"
SENTENCE_LENGTH = range(20, 240)  # characters
PER_WORDING = 14  # requests made of a wording with a place to fill
ABOUT_A_TEXT, WITH_CHOICE = 3, 4  # times as many
TOPICS = (
    split(
        "gardening astronomy cooking photography recycling democracy jazz knitting economics volcanoes meditation "
        "karate friendship climate vaccines nutrition poetry electricity genetics tourism taxes"
    ),
    split(
        "sleep robots ballet geology marriage cycling insurance opera sharks banking fashion chemistry patience "
        "camping diabetes"
    ),
)
FOLLOWING = (
    (
        "Can you explain that again?",
        "Why?",
        "Tell me more about that.",
        "And what else?",
        "Give me an example.",
        "Make it shorter.",
        "In French, please.",
        "Are you sure?",
        "What do you mean by that?",
        "How would I do that at home?",
        "Thanks! And what should I do next?",
        "Could you put that in simpler words?",
        "Write that as a poem.",
        "Is there another way?",
        "Which one would you choose?",
        "Now do the same for winter.",
        "What about children?",
        "Continue.",
        "Can you give me three more?",
        "How long does that take?",
        "What are the risks?",
        "Rewrite it for a formal letter.",
    ),
    (
        "Say that more simply.",
        "What is the reason for that?",
        "Got another idea?",
        "Go on.",
        "Where can I read more?",
        "Shorten it.",
        "Does that always hold?",
        "And in Spanish?",
        "Who came up with that?",
        "How much would it cost?",
        "What about the second point?",
    ),
)
SYSTEM = ("You are a helpful assistant.", "Answer briefly.", "You are a friendly teacher.", "Be kind.")
FOLLOWED, CONTINUED, TOLD = 0.6, 0.3, 0.15  # shares: ask on about it, have a third turn, begin with a system message


def read_sentences(data: Path, half: int) -> list[str]:
    """Returns every second sentence of the files in ``data``, by its checksum: those of ``half`` 0 or 1. Raises
    FileNotFoundError."""
    found: set[str] = set()
    with gzip.open(data / SENTENCE_PAIRS, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.reader(lines):
            found.update(row[:2])
    for name in SENTENCES:
        with gzip.open(data / name, "rt", encoding="utf-8") as lines:
            found.update(str(json.loads(line)["text_a"]).replace(" ,", ",").replace(" .", ".") for line in lines)
    return [text for text in sorted(found) if len(text) in SENTENCE_LENGTH and zlib.crc32(text.encode()) % 2 == half]


def written_requests(name: str, half: int, sentences: Sequence[str], seed: int) -> list[Task]:
    """Returns open requests of all wordings in the file ``name``, about ``sentences`` and the things and topics of
    ``half`` 0 or 1. The same for the same seed."""
    draw = random.Random(f"written requests {seed}")
    nouns = NOUNS.split()[half::2]
    made = []
    for wording in read_wordings(name):
        count = PER_WORDING if "{" in wording.text or wording.many else 1
        count *= (ABOUT_A_TEXT if "{text}" in wording.text else 1) * (WITH_CHOICE if wording.many else 1)
        for _ in range(count):
            values = {"text": draw.choice(sentences), "thing": draw.choice(nouns), "topic": draw.choice(TOPICS[half])}
            made.append(Task(OPEN, 1, wording.filled(values, draw).turns, ""))
    return made


def conversations(opened: Sequence[Task], count: int, half: int, sentences: Sequence[str], seed: int) -> list[Task]:
    """Returns ``count`` conversations that begin with one of ``opened``, have ``sentences`` for answers and go on with
    a question about them or another request."""
    draw = random.Random(f"conversations {seed}")
    made = []
    for _ in range(count):
        turns = [draw.choice(opened).turns[-1], _answer(sentences, draw)]
        if draw.random() < CONTINUED:
            turns += [Turn("user", draw.choice(FOLLOWING[half])), _answer(sentences, draw)]
        about_it = draw.random() < FOLLOWED
        turns.append(Turn("user", draw.choice(FOLLOWING[half])) if about_it else draw.choice(opened).turns[-1])
        told = [Turn("system", draw.choice(SYSTEM))] if draw.random() < TOLD else []
        made.append(Task(OPEN, 1, (*told, *turns), ""))
    return made


def _answer(sentences: Sequence[str], draw: random.Random) -> Turn:
    return Turn("assistant", " ".join(draw.sample(sentences, draw.randint(1, 4))))
