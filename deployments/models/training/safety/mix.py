"""The training mix: all sources and all rules, near-duplicates of the judges left out."""

from __future__ import annotations

import csv
import gzip
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.sources import TRAINING, draw, rows
from deployments.models.training.safety.splits import without_near_duplicates
from deployments.models.training.safety.twins import Rules
from deployments.models.training.safety.written import copied, is_written, written

DEVELOPMENT = 0.03  # of the mix without written texts, kept from training to calibrate with
MAX_TASK = 220  # characters of a harmless request in a frame
PARAGRAPH = 300  # characters that a document has at least


@dataclass(frozen=True, slots=True)
class Mix:
    training: list[Example]
    development: list[Example]


def read_mix(data: Path, judges: Sequence[Judge], seed: int) -> Mix:
    """Reads the sources in ``data`` and draws the rules. Raises OSError."""
    sourced = [example for name, source in TRAINING.items() for example in draw(source, name, data, seed)]
    rules = Rules(harmless_tasks(data), documents(data), jailbreak_templates(data), seed)
    everything = [*sourced, *rules.draw(), *written()]
    apart = without_near_duplicates(everything, (example.text for judge in judges for example in judge.examples))
    # Texts to calibrate with are none of the written ones: these have siblings, which would be trained on.
    others = [example for example in apart if not is_written(example)]
    random.Random(f"mix {seed}").shuffle(others)
    kept = round(len(others) * DEVELOPMENT)
    return Mix([*others[kept:], *copied(list(filter(is_written, apart)))], others[:kept])


def harmless_tasks(data: Path) -> list[str]:
    """Short requests of GPTeacher, self-instruct and snips."""
    found = [str(row["instruction"]) for row in rows(data / "corpus/gpteacher.jsonl.gz")]
    found += [str(row["text"]) for row in rows(data / "corpus/self_instruct_human.jsonl.gz")]
    found += [str(row["text"]) for row in rows(data / "benign/snips_train.jsonl.gz")][:3000]
    return sorted({text for text in found if 10 < len(text) < MAX_TASK})


def documents(data: Path) -> list[str]:
    """Paragraphs of Wikipedia, answers of GPTeacher, and e-mails."""
    with gzip.open(data / "eval/wikitext2_valid.txt.gz", "rt", encoding="utf-8") as file:
        found = [re.sub(r" @(.)@ ", r"\1", line).replace("<unk>", "it").strip() for line in file]
    found += [str(row["output"]) for row in rows(data / "corpus/gpteacher.jsonl.gz")]
    found += [str(row["context"]) for row in rows(data / "injection/bipia_email_train.jsonl.gz")] * 40
    return [text for text in found if len(text) > PARAGRAPH]


def jailbreak_templates(data: Path) -> list[str]:
    with gzip.open(data / "safety/gptfuzz_jailbreak_templates.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]
