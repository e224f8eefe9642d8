"""The data sets, read as pairs. Share-alike sets are for training and tests, not for shipping."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from deployments.models.training.pairs.pair import Pair

CONTRADICTIONS: Final = ("breaking_nli", "negated_mnli", "negated_rte", "conjnli_adversarial_train")
ALIKE, UNLIKE = 4.8, 3.0
"""Of STS-B's similarity from 0 to 5: from where two sentences say the same, and up to where they do not."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def labelled(data: Path, name: str) -> list[Pair]:
    """A file of cache/ that has text_a, text_b, label."""
    found = rows(data / f"cache/{name}.jsonl.gz")
    return [Pair(row["text_a"], row["text_b"], int(row["label"]), str(row.get("kind") or name)) for row in found]


def quora(data: Path) -> list[Pair]:
    return [Pair(pair.text_a, pair.text_b, pair.same, "quora") for pair in labelled(data, "qqp_pairs")]


def contradictions(data: Path) -> list[Pair]:
    """Contradictions of the nli sets as different; the synonyms of breaking_nli as the same."""
    found = []
    for name in CONTRADICTIONS:
        for row in rows(data / f"nli/{name}.jsonl.gz"):
            if row["label"] == "contradiction":
                found.append(Pair(row["premise"], row["hypothesis"], 0, name))
            elif row.get("category") == "synonyms" and row["label"] == "entailment":
                found.append(Pair(row["premise"], row["hypothesis"], 1, f"{name} synonyms"))
    return found


def one_sided(data: Path) -> list[Pair]:
    """Sentences of ScoNe and ConjNLI of which one says more than the other: different."""
    return [
        Pair(row["premise"], row["hypothesis"], 0, f"{name} neutral")
        for name in ("scone_train", "conjnli_adversarial_train")
        for row in rows(data / f"nli/{name}.jsonl.gz")
        if row["label"] == "neutral"
    ]


def similar_sentences(data: Path) -> list[Pair]:
    """STS-B: the most and the less similar sentences; what lies between is left out."""
    with gzip.open(data / "cache/stsb_train.csv.gz", "rt", encoding="utf-8", newline="") as file:
        scored = [(a, b, float(score)) for a, b, score in csv.reader(file)]
    return [Pair(a, b, int(score >= ALIKE), "stsb") for a, b, score in scored if not UNLIKE < score < ALIKE]


def neighbours(data: Path) -> list[Pair]:
    """Two questions on one passage of XQuAD: near in topic, different."""
    passages = defaultdict(list)
    for row in rows(data / "retrieval/xquad_en.jsonl.gz"):
        passages[row["passage_id"]].append(row["question"])
    return [Pair(a, b, 0, "xquad neighbours") for questions in passages.values() for a, b in pairwise(questions)]


def instructions(data: Path) -> list[str]:
    """Short requests to an assistant, of GPTeacher."""
    found = (str(row["instruction"]) for row in rows(data / "corpus/gpteacher.jsonl.gz"))
    return sorted({text for text in found if 15 < len(text) < 160})
