"""Harmless texts for the last round of a fold: tasks, passages with questions, calls of tools, and other languages.

Real attacks in a fold's training make it take such texts for attacks where none is in its half.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deployments.models.training.safety.example import Example, benign
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL
from deployments.models.training.safety.sources import Row, Source, draw, harmless, with_input
from deployments.models.training.safety.splits import without_near_duplicates


def passage(row: Row) -> Example:
    return benign(f"{row['passage']}\n\n{row['question']}", "calm:passage")


def tool_call(row: Row) -> Example | None:
    message = row["messages"][0]
    return benign(message["content"], "calm:tools") if message["role"] == "user" else None


CALM: Final[dict[str, Source]] = {
    "t0": Source("corpus/t0_train.jsonl.gz", harmless("calm:t0", "prompt", (HARMFUL, *CATEGORIES)), 1500),
    "passage": Source("retrieval/xquad_en.jsonl.gz", passage, 600),
    "gpteacher": Source("corpus/gpteacher.jsonl.gz", with_input("calm:gpteacher"), 3000),
    "languages": Source("benign/xquad_questions_11_languages.jsonl.gz", harmless("calm:languages"), 2000),
    "tools": Source("tools/bfcl_offline.jsonl.gz", tool_call, 1000),
}


def calm_texts(data: Path, judges: Sequence[Judge], seed: int) -> list[Example]:
    """Returns the texts that are no near-duplicates of any text of ``judges``. Raises OSError."""
    drawn = [example for name, source in CALM.items() for example in draw(source, f"calm {name}", data, seed)]
    return without_near_duplicates(drawn, (example.text for judge in judges for example in judge.examples))
