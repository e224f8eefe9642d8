"""Public English to mix with the tasks, so that open questions get readable answers."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from deployments.models.training.curriculum.task import FINAL, Turn

# Of one conversation: longer ones cost much and teach models of this size little. Role play, which is the only source
# of whole paragraphs, may be longer.
MAX_CHARS, MAX_ROLE_PLAY_CHARS = 600, 1000
MIN_WORDS = 4  # of an answer: most of T0's are shorter, and nobody learns to write from "yes"
HELD_OUT_SHARE = 50  # one conversation in so many is kept for evaluation
COMMON_CHARS = 40  # answers up to here are everybody's: that training knows them tells nothing
CALCULATOR = re.compile(r"<<[^>]*>>")  # GSM8K's notes for a calculator
COMPLETION_END = "<|endoftext|>"

Conversation = tuple[Turn, ...]


def read_english(data: Path, *, held_out: bool = False) -> list[Conversation]:
    """Short conversations of one question under ``data``/corpus: role play, T0's templates, GSM8K's train set.

    Those whose question is kept for evaluation by its checksum come only with ``held_out``, and no answer of theirs
    comes without, but for the shortest. Raises FileNotFoundError if the data is not there.
    """
    pairs = [
        *_short(_role_play(data), MAX_ROLE_PLAY_CHARS),
        *_short(_t0(data), MAX_CHARS),
        *_short(_gsm8k(data), MAX_CHARS),
    ]
    kept = [pair for pair in pairs if _checksum(pair[0]) % HELD_OUT_SHARE == 0]
    if not held_out:
        secret = {answer for _, answer in kept if len(answer) > COMMON_CHARS}
        others = (pair for pair in pairs if _checksum(pair[0]) % HELD_OUT_SHARE != 0)
        kept = [(question, answer) for question, answer in others if answer not in secret]
    return [(Turn("user", question), Turn("assistant", answer)) for question, answer in kept]


def _short(pairs: Iterator[tuple[str, str]], most: int) -> Iterator[tuple[str, str]]:
    for question, answer in pairs:
        if len(question) + len(answer) <= most and len(answer.split()) >= MIN_WORDS:
            yield question, answer


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode())


def _role_play(data: Path) -> Iterator[tuple[str, str]]:
    for row in _rows(data / "corpus" / "gpteacher.jsonl.gz"):
        if row["source"] == "gpteacher/roleplay":
            question = "\n".join(part for part in (row["instruction"], row.get("input", "")) if part)
            yield question.strip(), (row.get("response") or row.get("output", "")).strip()


def _t0(data: Path) -> Iterator[tuple[str, str]]:
    for row in _rows(data / "corpus" / "t0_train.jsonl.gz"):
        yield row["prompt"].strip(), row["completion"].replace(COMPLETION_END, "").strip()


def _gsm8k(data: Path) -> Iterator[tuple[str, str]]:
    for row in _rows(data / "corpus" / "gsm8k_train.jsonl.gz"):
        yield row["question"].strip(), CALCULATOR.sub("", row["answer"]).replace("####", FINAL).strip()


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
