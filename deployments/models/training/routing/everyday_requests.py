"""What people say to an assistant: everyday requests, which are open, and small talk, which the curriculum teaches.

The file has requests by intent (CLINC150, Larson et al. 2019), in small letters and without signs.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.curriculum.words import split
from deployments.models.training.routing.open_prompts import OPEN

SMALL_TALK = frozenset(
    {"greeting", "goodbye", "thank_you", "what_is_your_name", "are_you_a_bot", "what_can_i_ask_you"}
)  # intents
NEITHER = frozenset({"calculator", "cancel", "date", "maybe", "no", "repeat", "time", "weather", "yes"})
"""What the curriculum teaches in part, and what is no request."""
QUESTION_WORDS = frozenset(split("are can could did do does how is what when where which who whose why will would"))


def read_everyday_requests(path: Path, count: int, seed: int) -> list[Task]:
    """``count`` requests other than small talk, drawn from ``path``: JSON lines (gzip) with ``text`` and ``intent``.

    Raises FileNotFoundError, and ValueError if there are not as many.
    """
    draw = random.Random(f"everyday requests {seed}")
    usable = [text for intent, text in _rows(path) if intent not in SMALL_TALK | NEITHER]
    if len(usable) < count:
        raise ValueError(f"{path} has {len(usable)} usable requests, not {count}")
    return [_asked(text, draw) for text in draw.sample(usable, count)]


def read_small_talk(path: Path, seed: int) -> list[Task]:
    """Greetings, thanks and questions about the assistant, all that ``path`` has. Raises FileNotFoundError."""
    draw = random.Random(f"small talk {seed}")
    return [_asked(text, draw) for intent, text in _rows(path) if intent in SMALL_TALK]


def _rows(path: Path) -> list[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return sorted({(str(row["intent"]), str(row["text"]).strip()) for row in rows if row["text"].strip()})


def _asked(text: str, draw: random.Random) -> Task:
    """The request as most people write it: with a capital letter and a sign at its end."""
    said = text.rstrip("?.!")
    if draw.random() < 0.8:
        said = said[:1].upper() + said[1:]
    question = said.lower().split(" ", 1)[0] in QUESTION_WORDS
    sign = draw.choice(("?", "?", "?", "")) if question else draw.choice((".", "", "!", "."))
    return Task(OPEN, 1, (Turn("user", said + sign),), "")
