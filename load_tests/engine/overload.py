"""What happens when ten times as much arrives at once as the queue holds?

    python -m load_tests.engine.overload

All requests come in the same moment. Those beyond the bound are to be refused at once, all others to complete, and
memory is to stay flat.
"""

from __future__ import annotations

import argparse
import queue
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from engine import AsyncEngine, Delta, Engine, FinishReason, GenerationRequest, OverloadedError, SamplingParams
from load_tests.engine.model import save_random_llama


def peak_mib() -> float:
    """Most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def wave(engine: AsyncEngine, deltas: queue.SimpleQueue[Sequence[Delta]], number: int, requests: int) -> str:
    """Submits ``requests`` at once and waits for the end of those that were taken; a line of the table."""
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    refusals: list[float] = []
    hints: list[float] = []
    live: set[str] = set()
    began = time.perf_counter()
    for index in range(requests):
        name, before = f"{number}-{index}", time.perf_counter()
        try:
            engine.submit(GenerationRequest(name, (index % 1000 + 2, number + 2, 5, 6), params))
            live.add(name)
        except OverloadedError as error:
            refusals.append(time.perf_counter() - before)
            hints.append(error.retry_after_s)
    taken, done = len(live), 0
    while live:
        for delta in deltas.get(timeout=60):
            if delta.finish_reason is not None:
                live.discard(delta.request_id)
                done += delta.finish_reason is FinishReason.LENGTH
    seconds = time.perf_counter() - began
    slowest = 1e3 * max(refusals, default=0.0)
    typical = 1e6 * sorted(refusals)[len(refusals) // 2] if refusals else 0.0
    hint = f"{min(hints):.0f}-{max(hints):.0f}" if hints else ""
    return (
        f"{number:5}{requests:10}{taken:8}{done:10}{len(refusals):10}{typical:12.1f}{slowest:12.2f}{hint:>10}"
        f"{seconds:8.1f}{peak_mib():10.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bound", type=int, default=200, help="requests that the queue holds")
    parser.add_argument("--times", type=int, default=10, help="as many times the bound arrive")
    parser.add_argument("--waves", type=int, default=3)
    options = parser.parse_args()
    deltas: queue.SimpleQueue[Sequence[Delta]] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as directory:
        model = save_random_llama(Path(directory), 1024)
        subject = Engine.from_pretrained(
            model, kv_cache_tokens=16_384, max_waiting=options.bound, max_sequences=32, threads=1
        )
    engine = AsyncEngine(subject, deltas.put)
    engine.start()
    print(" wave  requests   taken completed   refused  refusal us  slowest ms  retry s       s  peak MiB")
    for number in range(options.waves):
        print(wave(engine, deltas, number, options.bound * options.times))
    engine.close()
    subject.check_integrity()
    print(f"blocks used at the end: {subject.stats().blocks_used}")


if __name__ == "__main__":
    main()
