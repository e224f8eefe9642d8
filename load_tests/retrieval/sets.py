"""The public sets: passages, and questions with the passage that answers each. They are not part of this project."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """A question. ``relevant`` has the ids of the passages that answer it; ``group`` is what it was cut by."""

    text: str
    relevant: frozenset[str]
    group: str


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Passages by id, and questions about them."""

    name: str
    passages: Mapping[str, str]
    questions: tuple[Question, ...]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a packed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def xquad(found: Iterable[dict[str, Any]]) -> RetrievalSet:
    """XQuAD in English: 240 passages. The groups are the articles."""
    listed = list(found)
    passages = {row["passage_id"]: row["passage"] for row in listed}
    questions = (Question(row["question"], frozenset({row["passage_id"]}), row["title"]) for row in listed)
    return RetrievalSet("xquad", passages, tuple(questions))


def condaqa(found: Iterable[dict[str, Any]]) -> RetrievalSet:
    """CondaQA: passages, each with up to three twins that were edited round a negation.

    A question is put to several twins in the same words, so its words cannot say which of them is meant: all of them
    are relevant. The groups are the twins of a passage together.
    """
    listed = list(found)
    twins: dict[str, set[str]] = {}
    for row in listed:
        twins.setdefault(row["question"], set()).add(digest(row["passage"]))
    passages = {digest(row["passage"]): row["passage"] for row in listed}
    groups = joined(twins.values())
    questions = (Question(text, frozenset(relevant), groups[min(relevant)]) for text, relevant in twins.items())
    return RetrievalSet("condaqa", passages, tuple(questions))


def joined(sets: Iterable[set[str]]) -> dict[str, str]:
    """Returns the group of each item: items that are in one of ``sets`` are in one group, named by its first item."""
    groups: dict[str, set[str]] = {}
    for items in sets:
        group = set(items).union(*(groups.get(item, ()) for item in items))
        groups.update(dict.fromkeys(group, group))
    return {item: min(group) for item, group in groups.items()}


def covid_faq(found: Iterable[dict[str, Any]]) -> RetrievalSet:
    """Questions put to health services; the passages are the answers. The groups are the questions themselves."""
    listed = list(found)
    passages = {digest(row["answer"]): row["answer"] for row in listed}
    questions = (Question(row["question"], frozenset({digest(row["answer"])}), row["question"]) for row in listed)
    return RetrievalSet("covid_faq", passages, tuple(questions))


SETS: Mapping[str, Callable[[Iterable[dict[str, Any]]], RetrievalSet]] = {
    "xquad_en.jsonl.gz": xquad,
    "condaqa_dev.jsonl.gz": condaqa,
    "covid_faq.jsonl.gz": covid_faq,
}


def digest(text: str) -> str:
    """Returns a name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_train(question: Question) -> bool:
    """Whether a question is in the half on which the fusion is tuned. Questions of one group are in one half."""
    return hashlib.sha256(question.group.encode()).digest()[0] < 128
