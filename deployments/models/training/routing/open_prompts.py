"""Open questions and instructions that people have written, and what counts as an answer to one.

The curriculum has exact answers; an open question has none. A reply counts if it reads like English prose and speaks of
what was asked. That tells a model that knows English from one that babbles, which is all that routing needs: it says
nothing of whether the reply is true.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployments.models.training.curriculum.task import Task, Turn, is_right
from load_tests.quality.open_questions.match import without, words
from load_tests.quality.open_questions.prose import FUNCTION_WORDS, is_prose

OPEN = "open"
MIN_WORDS, MAX_WORDS = 4, 30  # of a question
MAX_INSTRUCTION_WORDS = 120  # with what it is to be applied to
MIN_SHARED = 1  # words of the question, other than function words, that an answer mentions
MIN_STEM = 4  # letters by which words are compared, so that "planets" speaks of a planet


def read_open_prompts(path: Path, count: int, seed: int) -> list[Task]:
    """``count`` questions drawn from ``path``, JSON lines (gzip) with a ``text_a``, such as Quora Question Pairs.

    Raises FileNotFoundError, and ValueError if there are not as many.
    """
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = sorted({str(json.loads(line)["text_a"]).strip() for line in lines})
    usable = [text for text in texts if MIN_WORDS <= len(words(text)) <= MAX_WORDS and text.endswith("?")]
    if len(usable) < count:
        raise ValueError(f"{path} has {len(usable)} usable questions, not {count}")
    drawn = random.Random(f"open {seed}").sample(usable, count)
    return [Task(OPEN, 1, (Turn("user", text),), "") for text in drawn]


def read_instructions(paths: Sequence[Path], count: int, seed: int) -> list[Task]:
    """``count`` instructions drawn evenly from ``paths``, JSON lines (gzip) with ``instruction`` or ``text``, and
    ``input``, which follows it.

    Raises FileNotFoundError, and ValueError if a file has not as many as are wanted of it.
    """
    drawn: list[Task] = []
    for place, path in enumerate(paths):
        share = count * (place + 1) // len(paths) - count * place // len(paths)
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts = sorted({_instruction(json.loads(line)) for line in lines})
        usable = [text for text in texts if MIN_WORDS <= len(words(text)) <= MAX_INSTRUCTION_WORDS]
        if len(usable) < share:
            raise ValueError(f"{path} has {len(usable)} usable instructions, not {share}")
        chosen = random.Random(f"instructions {seed} {path.name}").sample(usable, share)
        drawn += [Task(OPEN, 1, (Turn("user", text),), "") for text in chosen]
    return drawn


def _instruction(row: Mapping[str, str]) -> str:
    """The instruction of a row, and what it is to be applied to."""
    parts = (row.get("instruction") or row.get("text") or "", row.get("input") or "")
    return "\n\n".join(part.strip() for part in parts if part.strip())


def accepts(task: Task, reply: str) -> bool:
    """Whether ``reply`` is right: by exact match, and for an open question by the rule of this module."""
    if task.family != OPEN:
        return is_right(reply, task.answer)
    question = task.turns[-1].content
    own = without(reply, question)
    return is_prose(own) and len(_stems(own) & _stems(question)) >= MIN_SHARED


def _stems(text: str) -> frozenset[str]:
    """Beginnings of the words that mean something."""
    return frozenset(word[:MIN_STEM] for word in words(text) if word not in FUNCTION_WORDS and len(word) >= MIN_STEM)
