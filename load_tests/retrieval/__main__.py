"""``python -m load_tests.retrieval``: how well passages are found, by BM25, by vectors and by both."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.api import Conversation, Message, SamplingParams
from load_tests.retrieval.direct_embedder import DirectEmbedder, packaged_model
from load_tests.retrieval.metrics import ndcg, recall
from load_tests.retrieval.planted import planted_case
from load_tests.retrieval.sets import SETS, Question, RetrievalSet, is_train, rows
from router.config.retrieval import RetrievalConfig
from router.documents import Document
from router.inference_request import InferenceRequest
from router.memory_collection_store import MemoryCollectionStore
from router.ports.clock import SystemClock
from router.retrieval.bm25 import Bm25Index
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.collections import Collections
from router.retrieval.index_terms import terms
from router.retrieval.passage_index import DEPTH, RRF_K, RRF_WEIGHTS
from router.retrieval.rank_fusion import fused, ranking
from router.retrieval.retriever import Retriever

DESCRIPTION = """\
Find passages for questions.

sets      XQuAD (240 passages), CondaQA (450 passages; a passage and its edited twins count as one) and an FAQ (210
          answers), from --data. Each question's groups are in one of two halves. The fusion of both rankings is tuned
          on one half (--tune shows the grid); the table is of the other.
planted   --planted generated cases of fifty documents, of which one has the answer, through the whole way of a
          request: chunked, searched, made diverse and packed to the default budget. A case counts if the sentence
          with the answer is in the context.
size      times of BM25 and of vectors with 50 to 50,000 chunks (--sizes).
"""

KS = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
WEIGHTS = (0.5, 0.7, 1.0, 1.5, 2.0)
MEASURES = ("recall@1", "recall@5", "ndcg@10")
BUDGETS = (256, 512, 1024)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A set with the rankings of its questions, as rows of its passages."""

    data: RetrievalSet
    bm25: Sequence[Sequence[int]]
    vectors: Sequence[Sequence[int]]

    def both(self, k: float, weight: float) -> list[list[int]]:
        """Returns the fused rankings. ``weight`` is that of BM25; that of vectors is 1."""
        pairs = zip(self.bm25, self.vectors, strict=True)
        return [list(fused([one, other], [weight, 1.0], k)) for one, other in pairs]

    def scored(self, rankings: Sequence[Sequence[int]], *, train: bool | None) -> dict[str, float]:
        """Returns the means of the measures over one half of the questions. ``train`` None: over all of them."""
        names = list(self.data.passages)
        found = [
            _measures(question, [names[row] for row in rows_found])
            for question, rows_found in zip(self.data.questions, rankings, strict=True)
            if train in (None, is_train(question))
        ]
        return {name: round(fmean(values), 4) for name, values in zip(MEASURES, zip(*found, strict=True), strict=True)}


def _measures(question: Question, ranked: Sequence[str]) -> tuple[float, float, float]:
    relevant = question.relevant
    return recall(ranked, relevant, 1), recall(ranked, relevant, 5), ndcg(ranked, relevant, 10)


async def ranked(data: RetrievalSet, embedder: ChunkEmbedder) -> Ranked:
    """Ranks the passages of a set for each of its questions."""
    index = Bm25Index()
    for passage in data.passages.values():
        index.add(terms(passage))
    passages = await embedded(list(data.passages.values()), embedder, f"{data.name}: passages")
    questions = await embedded([each.text for each in data.questions], embedder, f"{data.name}: questions")
    by_terms = [ranking(index.scores(list(dict.fromkeys(terms(each.text)))), DEPTH, 0.0) for each in data.questions]
    by_vectors = [ranking(passages @ question, DEPTH, 0.0) for question in questions]
    return Ranked(data, by_terms, by_vectors)


async def embedded(texts: Sequence[str], embedder: ChunkEmbedder, label: str) -> NDArray[np.float32]:
    """Returns the vectors of ``texts``, float32 [texts, dimensions], with a progress bar."""
    parts = [texts[start : start + 32] for start in range(0, len(texts), 32)]
    made = [(await embedder.vectors(part)).rows for part in tqdm(parts, desc=label, disable=not sys.stderr.isatty())]
    return np.concatenate(made)


def best_fusion(sets: Sequence[Ranked]) -> tuple[float, float, list[dict[str, Any]]]:
    """Returns k and the weight of BM25 whose smallest gain over the better of the two ways, of all sets and measures,
    is the largest on the training half; and the whole grid."""
    grid: list[dict[str, Any]] = []
    for k, weight in itertools.product(KS, WEIGHTS):
        gains = []
        for each in sets:
            one, other = each.scored(each.bm25, train=True), each.scored(each.vectors, train=True)
            both = each.scored(each.both(k, weight), train=True)
            gains += [both[name] - max(one[name], other[name]) for name in MEASURES]
        grid.append({"k": k, "weight": weight, "least_gain": round(min(gains), 4), "mean_gain": round(fmean(gains), 4)})
    best = max(grid, key=lambda row: (row["least_gain"], row["mean_gain"]))
    return best["k"], best["weight"], grid


async def measure_planted(cases: int, embedder: ChunkEmbedder) -> dict[str, Any]:
    """Returns the share of cases whose answer is in the context, by budget, with vectors and without."""
    found: dict[str, float] = {}
    for budget, model in itertools.product(BUDGETS, (None, embedder)):
        config = RetrievalConfig(budget_tokens=budget, embed_timeout_s=60)
        named = Collections(config, MemoryCollectionStore(), model, SystemClock())
        retriever = Retriever(config, named, model)
        label = f"{'bm25' if model is None else 'hybrid'}@{budget}"
        hits = []
        for seed in tqdm(range(cases), desc=label, disable=not sys.stderr.isatty()):
            case = planted_case(seed)
            augmented = await retriever.augment("t", _request(case.question, case.texts))
            assert augmented.context is not None
            hits.append(case.fact in augmented.context.text)
        found[label] = round(fmean(hits), 4)
    return {"cases": cases, "documents": 50, "recall_at_budget": found}


def _request(question: str, texts: Sequence[str]) -> InferenceRequest:
    documents = tuple(Document(str(place), text) for place, text in enumerate(texts))
    prompt = Conversation((Message("user", question),))
    return InferenceRequest("fast", [prompt], SamplingParams(), "messages", _no_writer, documents=documents)


def _no_writer(stamp: object) -> Any:
    raise AssertionError("nothing is written")


def measure_sizes(sizes: Sequence[int]) -> list[dict[str, float]]:
    """Returns milliseconds to index a chunk and to search all of them, by their number."""
    generator = np.random.default_rng(0)
    words = [f"w{n}" for n in range(30_000)]
    found = []
    for size in tqdm(sizes, desc="sizes", disable=not sys.stderr.isatty()):
        draws = np.minimum(generator.zipf(1.3, (size, 120)), 30_000) - 1
        texts = [[words[word] for word in row] for row in draws.tolist()]
        index = Bm25Index()
        started = time.perf_counter()
        for text in texts:
            index.add(text)
        added = time.perf_counter() - started
        queries = [texts[place][:8] for place in generator.integers(0, size, 20)]
        started = time.perf_counter()
        for query in queries:
            ranking(index.scores(query), DEPTH, 0.0)
        searched = (time.perf_counter() - started) / len(queries)
        found.append(
            {"chunks": size, "add_ms_each": round(1e3 * added / size, 4), "search_ms": round(1e3 * searched, 3)}
        )
    return found


def table(figures: Mapping[str, Any]) -> str:
    """Returns the figures of the sets as a table in Markdown: of the half that tuned nothing, and of all questions."""
    lines = ["| set, questions | measure | BM25 | vectors | both |", "| --- | --- | ---: | ---: | ---: |"]
    for half, (name, row) in itertools.product(("test", "all"), figures.items()):
        for measure in MEASURES:
            values = " | ".join(f"{row[half][way][measure]:.3f}" for way in ("bm25", "vectors", "both"))
            lines.append(f"| {name}, {row['questions'][half]} ({half}) | {measure} | {values} |")
    return "\n".join(lines)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what ``options`` ask for."""
    embedder = ChunkEmbedder(DirectEmbedder(packaged_model()))
    figures: dict[str, Any] = {"model": embedder.model, "k": RRF_K, "weight": RRF_WEIGHTS[0]}
    if options.data is not None:
        sets = [await ranked(make(rows(options.data / name)), embedder) for name, make in SETS.items()]
        k, weight, grid = best_fusion(sets)
        figures["tuned"] = {"k": k, "weight": weight} | ({"grid": grid} if options.tune else {})
        figures["sets"] = {each.data.name: _of_set(each) for each in sets}
        print(table(figures["sets"]))
        print(f"\nused: k {RRF_K:g}, weight {RRF_WEIGHTS[0]:g}; best on the training half: k {k:g}, weight {weight:g}")
    if options.planted:
        figures["planted"] = await measure_planted(options.planted, embedder)
        print(json.dumps(figures["planted"]))
    if options.sizes:
        figures["sizes"] = measure_sizes(options.sizes)
        print("\n".join(map(json.dumps, figures["sizes"])))
    return figures


def _of_set(each: Ranked) -> dict[str, Any]:
    both = each.both(RRF_K, RRF_WEIGHTS[0] / RRF_WEIGHTS[1])
    ways = {"bm25": each.bm25, "vectors": each.vectors, "both": both}
    halves = {"test": False, "train": True, "all": None}
    questions = {
        name: sum(train in (None, is_train(one)) for one in each.data.questions) for name, train in halves.items()
    }
    figures = {
        name: {way: each.scored(rankings, train=train) for way, rankings in ways.items()}
        for name, train in halves.items()
    }
    return {"passages": len(each.data.passages), "questions": questions, **figures}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints tables."""
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.retrieval",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="the folder with the public sets")
    parser.add_argument("--tune", action="store_true", help="write the whole grid of the fusion into the figures")
    parser.add_argument("--planted", type=int, default=0, metavar="N", help="the number of generated cases")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="numbers of chunks to time")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    try:
        figures = asyncio.run(measure(options))
    except FileNotFoundError as error:
        parser.error(f"--data has no such file: {error.filename}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
