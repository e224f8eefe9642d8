"""``python -m load_tests.cache_index``: what a look-up in the semantic index costs, without embedding and scoring."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis
import uvloop
from numpy.typing import NDArray
from tqdm import tqdm

from cluster.cache.candidate_choice import Judged
from cluster.cache.embedding_cache import EmbeddingCache
from cluster.cache.index_follower import IndexFollower
from cluster.cache.ports import QuestionStore
from cluster.cache.semantic_lookup import RANKED_AGAIN, LookupLimits, SemanticLookup
from cluster.cache.vector_index import IndexBounds, IndexedEntry, VectorIndex
from cluster.cache.vector_quantisation import unit_rows
from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.question_record import QuestionRecord, model_digest
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_questions import RedisQuestions
from load_tests.safety.quantiles import quantiles
from router.ports.answer_cache import SemanticQuestion
from router.ports.clock import SystemClock
from router.ports.embedder import Embedded
from router.ports.pair_scorer import Candidate

DESCRIPTION = """\
Measure the semantic index with all questions in one partition, which is the hardest case: a real Redis has the
questions and vectors, the index is rebuilt from it, and questions near stored ones are looked up. The vectors are
drawn: topics of fifty questions each, with a spectrum that falls like that of sentence embeddings; a query has a cosine
of about 0.87 with the question that it repeats. "search" is the index alone; "look-up" adds the round trip to Redis for
the candidates' questions, and their exact cosines. CPU times are those of the calling thread: on a machine with other
work, they say what the processor has to do. Recall is that of the exact cosines in float32, of all questions. The event
loop is uvloop's, which Ray's workers have.
"""

TENANT, PARTITION = "tenant", "ab" * 32
MODEL = "drawn@1"
YEAR_MS = 365 * 86_400_000
BATCH = 2000
TOPIC = 50
CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one size. Latencies in milliseconds, memory in bytes for an entry."""

    entries: int
    rebuild_s: float
    rebuild_cpu_s: float
    memory: int
    memory_estimate: int
    redis_memory: int
    search_ms: dict[str, float]
    search_cpu_ms: dict[str, float]
    lookup_ms: dict[str, float]
    lookup_cpu_ms: dict[str, float]
    add_cpu_ms: dict[str, float]
    recall_at_1: float
    recall_at_5: float
    recall_at_5_before_ranking: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    rows = []
    for entries in options.entries:
        rows.append(uvloop.run(measured(entries, options.queries, options.dimensions)))
        _report(rows[-1])
    if options.json is not None:
        document = {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "dimensions": options.dimensions,
            "queries": options.queries,
            "runs": [asdict(row) for row in rows],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.cache_index",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--entries", type=int, nargs="+", default=[100_000], help="in the partition (default: 100000)")
    add("--queries", type=int, default=1000, help="look-ups (default: %(default)s)")
    add("--dimensions", type=int, default=384, help="of a vector (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


async def measured(entries: int, queries: int, dimensions: int) -> Row:
    """Fills a Redis, rebuilds an index from it, and looks questions up."""
    drawn = Drawn(entries, dimensions)
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory) / "redis", _free_port())
        server.start()
        try:
            return await _measured(drawn, server, Path(directory), queries)
        finally:
            server.stop()


async def _measured(drawn: Drawn, server: RedisServer, journal: Path, queries: int) -> Row:
    await asyncio.to_thread(_wait_for, server.url)
    state = StateConfig(journal=journal, background_timeout_s=30.0, timeout_s=30.0)
    questions, store = RedisQuestions(state, server.url), RedisEntryStore(state, server.url)
    redis_memory = await _fill(drawn, questions, server.url)
    process, before = psutil.Process(), psutil.Process().memory_info().rss
    embedder, bounds = NoModel(drawn.dimensions), IndexBounds(drawn.entries + 1000, 1 << 40, 1 << 40)
    embeddings = EmbeddingCache(1)
    follower = IndexFollower(
        store,
        store,
        questions,
        embedder,
        embeddings,
        lambda: VectorIndex(drawn.dimensions, bounds),
        SystemClock(),
    )
    started, cpu = time.perf_counter(), time.process_time()
    await _with_bar(follower, drawn.entries)
    rebuild_s, rebuild_cpu_s = time.perf_counter() - started, time.process_time() - cpu
    index = follower.index
    assert index is not None
    assert len(index) == drawn.entries, f"{len(index)} of {drawn.entries} entries are in the index"
    memory = process.memory_info().rss - before
    size = index.size
    asked, truth = drawn.queries(queries)
    cosines = Cosines(follower, questions, embedder, embeddings)
    figures = await _look_up(index, cosines, asked, truth)
    row = Row(
        drawn.entries,
        round(rebuild_s, 1),
        round(rebuild_cpu_s, 1),
        memory // drawn.entries,
        size.bytes // size.entries,
        redis_memory,
        add_cpu_ms=_add(index, drawn),
        **figures,  # type: ignore[arg-type]
    )
    await store.close()
    await questions.close()
    return row


async def _look_up(
    index: VectorIndex, cosines: Cosines, asked: NDArray[np.float32], truth: NDArray[np.int64]
) -> dict[str, object]:
    """Returns the latencies of searches and look-ups, and the recall of both."""
    search, search_cpu, lookup, lookup_cpu = Timer(), Timer(time.thread_time), Timer(), Timer(time.thread_time)
    first = nearest = near = 0
    now_ms = int(1000 * time.time())
    for query, best in zip(tqdm(asked, desc="searches", leave=False), truth.tolist(), strict=True):
        with search, search_cpu:
            found = index.search(TENANT, PARTITION, query, CANDIDATES + RANKED_AGAIN, now_ms)
        near += len({int(each.id, 16) for each in found[:CANDIDATES]} & set(best))
    # Not right after the same search, which would leave in the processor's cache what a look-up reads.
    for query, best in zip(tqdm(asked, desc="look-ups", leave=False), truth.tolist(), strict=True):
        with lookup, lookup_cpu:
            ranked = await cosines.candidates(query)
        ids = [int(each, 16) for each in ranked]
        first += ids[0] == best[0]
        nearest += len(set(ids) & set(best))
    return {
        "search_ms": quantiles(search.taken_ms),
        "search_cpu_ms": quantiles(search_cpu.taken_ms),
        "lookup_ms": quantiles(lookup.taken_ms),
        "lookup_cpu_ms": quantiles(lookup_cpu.taken_ms),
        "recall_at_1": round(first / len(asked), 4),
        "recall_at_5": round(nearest / (CANDIDATES * len(asked)), 4),
        "recall_at_5_before_ranking": round(near / (CANDIDATES * len(asked)), 4),
    }


def _add(index: VectorIndex, drawn: Drawn) -> dict[str, float]:
    """Returns the CPU time that a new entry takes on the event loop."""
    timer = Timer(time.thread_time)
    for number, vector in enumerate(drawn.vectors(drawn.entries, drawn.entries + 300)):
        entry = IndexedEntry(TENANT, f"{drawn.entries + number:064x}", PARTITION, 0, YEAR_MS * 100)
        with timer:
            index.add(entry, vector)
    return quantiles(timer.taken_ms)


class Drawn:
    """Vectors of drawn questions, the same for the same number. Only float16 copies are kept."""

    def __init__(self, entries: int, dimensions: int) -> None:
        self.entries = entries
        self.dimensions = dimensions
        rng = np.random.default_rng(0)
        self._spectrum = (np.arange(1, dimensions + 1) ** -0.5).astype(np.float32)
        self._turn = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0].astype(np.float32)
        self._topics = max(1, entries // TOPIC)

    def vectors(self, first: int, end: int) -> NDArray[np.float32]:
        """Returns the vectors of questions ``first`` to ``end``, float32 [end - first, dimensions]."""
        rng = np.random.default_rng((1, first))
        own = rng.standard_normal((end - first, self.dimensions), np.float32)
        topics = rng.integers(0, self._topics, end - first)
        centres = np.stack([np.random.default_rng((2, int(each))).standard_normal(self.dimensions) for each in topics])
        return unit_rows(((centres.astype(np.float32) + 0.7 * own) * self._spectrum) @ self._turn)

    def batches(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yields all vectors in batches, each with the number of its first."""
        for first in range(0, self.entries, BATCH):
            yield first, self.vectors(first, min(self.entries, first + BATCH))

    def queries(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Returns queries, and the numbers of the five questions that are nearest to each, by brute force."""
        rng = np.random.default_rng(3)
        drawn = rng.standard_normal((count, self.dimensions)).astype(np.float32)
        noise = unit_rows(((drawn * self._spectrum) @ self._turn).astype(np.float32))
        near = np.sort(rng.integers(0, self.entries, count))
        asked = np.empty((count, self.dimensions), np.float32)
        for first, vectors in tqdm(self.batches(), desc="queries", total=-(-self.entries // BATCH), leave=False):
            places = np.flatnonzero((near >= first) & (near < first + len(vectors)))
            asked[places] = unit_rows(0.87 * vectors[near[places] - first] + 0.5 * noise[places])
        scores = np.full((count, CANDIDATES), -2.0, np.float32)
        truth = np.zeros((count, CANDIDATES), np.int64)
        for first, vectors in tqdm(self.batches(), desc="brute force", total=-(-self.entries // BATCH), leave=False):
            # In the precision in which Redis has them.
            found = asked @ vectors.astype(np.float16).astype(np.float32).T
            numbers = np.broadcast_to(np.arange(first, first + len(vectors)), found.shape)
            both, names = np.concatenate([scores, found], axis=1), np.concatenate([truth, numbers], axis=1)
            best = np.argpartition(-both, CANDIDATES, axis=1)[:, :CANDIDATES]
            scores, truth = np.take_along_axis(both, best, 1), np.take_along_axis(names, best, 1)
        order = np.argsort(-scores, axis=1)
        return asked, np.take_along_axis(truth, order, 1)


class NoModel:
    """Implements ``Embedder``, but the vectors are there already."""

    model = MODEL
    max_tokens = 256

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        raise AssertionError("every question has a stored vector")


class NoStage:
    """Implements ``PairScorer`` and ``Threshold``: this measures the first stage alone."""

    version = "none"

    async def score(self, question: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        return [0.0] * len(candidates)

    def __call__(self, tenant: str, max_false_hit_rate: float) -> float:
        return 1.0

    def refresh(self, tenant: str) -> None:
        """There is no evidence."""


class Cosines:
    """The first stage of a look-up."""

    def __init__(
        self, follower: IndexFollower, questions: QuestionStore, embedder: NoModel, embeddings: EmbeddingCache
    ) -> None:
        stage, limits = NoStage(), LookupLimits(CANDIDATES, -1.0)
        self._index = SemanticLookup(
            follower, questions, embedder, embeddings, stage, lambda one, other: None, stage, limits, SystemClock()
        )

    async def candidates(self, vector: NDArray[np.float32]) -> list[str]:
        """Returns the ids of the nearest questions, the nearest first."""
        question = SemanticQuestion(TENANT, PARTITION, "?", 0.01)
        found = await self._index.candidates(question, vector)
        return [Judged(record.id, cosine).entry_id for record, cosine in found]


class Timer:
    """Collects how long its ``with`` blocks take, in milliseconds of ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = 0.0
        self.taken_ms: list[float] = []

    def __enter__(self) -> None:
        self._started = self._clock()

    def __exit__(self, *_: object) -> None:
        self.taken_ms.append(1000 * (self._clock() - self._started))


async def _fill(drawn: Drawn, questions: RedisQuestions, url: str) -> int:
    """Stores the records. Returns the bytes of Redis for each."""
    model, now_ms = model_digest(MODEL), int(1000 * time.time())
    with tqdm(total=drawn.entries, desc="filling Redis", leave=False) as bar:
        for first, vectors in drawn.batches():
            await questions.put(
                [
                    QuestionRecord(
                        TENANT,
                        f"{first + place:064x}",
                        PARTITION,
                        f"This is the drawn question number {first + place}.",
                        now_ms,
                        now_ms + YEAR_MS,
                        model,
                        vector,
                    )
                    for place, vector in enumerate(vectors)
                ]
            )
            bar.update(len(vectors))
    await questions.note_position(model, "0")
    with redis.Redis.from_url(url) as client:
        memory: Any = client.info("memory")
        return int(memory["used_memory"]) // drawn.entries


async def _with_bar(follower: IndexFollower, entries: int) -> None:
    """Builds the index, with a bar of the time that has passed."""
    building = asyncio.create_task(follower.step())
    with tqdm(desc=f"rebuilding {entries:,} entries", unit="s", leave=False) as bar:
        while not building.done():
            await asyncio.wait([building], timeout=1)
            bar.update()
    await building


def _wait_for(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        for _ in range(500):
            try:
                client.ping()
            except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                time.sleep(0.02)
            else:
                return
    raise OSError("Redis does not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _report(row: Row) -> None:
    def both(values: dict[str, float]) -> str:
        return f"{values['p50']:.2f} / {values['p99']:.2f}"

    print(f"{row.entries:,} entries: rebuilt from Redis in {row.rebuild_s} s ({row.rebuild_cpu_s} s of CPU)")
    print(f"  memory for an entry: {row.memory} bytes (estimated {row.memory_estimate}), in Redis {row.redis_memory}")
    print(f"  search, ms p50 / p99: {both(row.search_ms)}; CPU {both(row.search_cpu_ms)}")
    print(f"  look-up, ms p50 / p99: {both(row.lookup_ms)}; CPU {both(row.lookup_cpu_ms)}")
    print(f"  a new entry, CPU ms p50 / p99: {both(row.add_cpu_ms)}")
    print(
        f"  recall@1 {row.recall_at_1}, @5 {row.recall_at_5} ({row.recall_at_5_before_ranking} before candidates are "
        "ranked by exact cosines)"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    raise SystemExit(main())
