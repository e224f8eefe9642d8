"""``python -m load_tests.safety.latency``: what a classification costs, alone and with others, batched and not."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety.api import Scores
from safety.classifier.artefact import Artefact
from safety.classifier.batching_classifier import BatchingClassifier
from safety.classifier.window_classifier import WindowClassifier
from safety.classifier.windows import Span
from safety.encoder.batch_runner import MAX_BATCH_TOKENS
from safety.encoder.precision import Precision

DESCRIPTION = """\
Measure the text classifier in this process, on one thread: callers at the same time, each of which asks again as soon
as it is answered. Short texts have 30 tokens, long ones 512; every text is another. Latency is wall time and includes
the wait for the batch before. CPU time is that of the classifier's thread alone: on a machine with other work, it says
what the processor has to do.
"""

EXTENSIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")

WORDS = ("the", "of", "and", "a", "river", "stone", "city", "winter", "letter", "garden", "market", "music", "paper")


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one run. Latencies in milliseconds."""

    tokens: int
    callers: int
    batching: bool
    texts: int
    p50_ms: float
    p99_ms: float
    texts_per_s: float
    cpu_ms_per_text: float
    texts_per_cpu_s: float
    windows_per_batch: float


class TimedModel:
    """A model that adds up the CPU time of ``logits``."""

    def __init__(self, model: WindowClassifier) -> None:
        self._model = model
        self.cpu_s = 0.0

    @property
    def artefact(self) -> Artefact:
        return self._model.artefact

    def windows(self, text: str) -> list[list[int]]:
        return self._model.windows(text)

    def spans(self, text: str) -> list[Span]:
        return self._model.spans(text)

    def logits(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        started = time.thread_time()
        rows = self._model.logits(batch)
        self.cpu_s += time.thread_time() - started
        return rows


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    model = WindowClassifier(options.model, options.precision)
    rows = []
    for tokens in options.tokens:
        for callers in options.callers:
            for batching in (True, False) if callers > 1 else (True,):
                rows.append(asyncio.run(measured(model, tokens, callers, batching, options.seconds)))
                _progress(rows[-1])
    if options.json is not None:
        document = {
            "version": model.artefact.version,
            "precision": options.precision,
            "processor": processor(),
            "python": platform.python_version(),
            "runs": [asdict(row) for row in rows],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.safety.latency",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, default=Path("deployments/models/safety"), help="directory (default: %(default)s)")
    add("--precision", type=Precision, choices=list(Precision), default=Precision.INT8, help="default: %(default)s")
    add("--tokens", type=int, nargs="+", default=[30, 512], help="of each text (default: 30 512)")
    add("--callers", type=int, nargs="+", default=[1, 32], help="at the same time (default: 1 32)")
    add("--seconds", type=float, default=10.0, help="of each run (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


async def measured(model: WindowClassifier, tokens: int, callers: int, batching: bool, seconds: float) -> Row:
    """Measures ``callers`` callers for ``seconds``, after a text each to warm up."""
    timed = TimedModel(model)
    classifier = BatchingClassifier(timed, MAX_BATCH_TOKENS if batching else 1)
    rng = random.Random(0)
    texts = [text_of(tokens, rng) for _ in range(256)]
    await asyncio.gather(*(classifier.classify([text]) for text in texts[:callers]))
    timed.cpu_s, classifier.runner.batches, classifier.runner.sequences = 0.0, 0, 0
    latencies: list[float] = []
    started = time.perf_counter()

    async def call(place: int) -> None:
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            scores: Sequence[Scores] = await classifier.classify([texts[place % len(texts)]])
            latencies.append(time.perf_counter() - begun)
            assert len(scores) == 1
            place += callers

    await asyncio.gather(*(call(place) for place in range(callers)))
    wall_s = time.perf_counter() - started
    classifier.close()
    p50, p99 = np.percentile(latencies, [50, 99])
    return Row(
        tokens=tokens,
        callers=callers,
        batching=batching,
        texts=len(latencies),
        p50_ms=round(1000 * float(p50), 2),
        p99_ms=round(1000 * float(p99), 2),
        texts_per_s=round(len(latencies) / wall_s, 1),
        cpu_ms_per_text=round(1000 * timed.cpu_s / len(latencies), 2),
        texts_per_cpu_s=round(len(latencies) / timed.cpu_s, 1),
        windows_per_batch=round(classifier.runner.sequences / classifier.runner.batches, 1),
    )


def text_of(tokens: int, rng: random.Random) -> str:
    """Returns a text of ``tokens`` tokens, ``[CLS]`` and ``[SEP]`` included. WORDS are one token each."""
    return " ".join(rng.choice(WORDS) for _ in range(tokens - 2))


def processor() -> str:
    """Returns the processor's name, and which of its extensions for products of integers it has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    fields = [line.partition(":") for line in text.splitlines()]
    names = [value.strip() for name, _, value in fields if name.strip() == "model name"]
    flags = {flag for name, _, value in fields if name.strip() == "flags" for flag in value.split()}
    return ", ".join([*names[:1], *(flag for flag in EXTENSIONS if flag in flags)])


def _progress(row: Row) -> None:
    """Prints a row."""
    kind = "batched" if row.batching else "one by one"
    print(
        f"{row.tokens:5} tokens  {row.callers:3} at once  {kind:10}  p50 {row.p50_ms:9.2f}  p99 {row.p99_ms:9.2f} ms"
        f"  {row.texts_per_s:7.1f} texts/s  CPU {row.cpu_ms_per_text:7.2f} ms/text, {row.texts_per_cpu_s:6.1f} texts/s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
