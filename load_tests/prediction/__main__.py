"""``python -m load_tests.prediction``: predicted against measured times to the first token, with real engines."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.config import PlacementConfig, TierConfig
from cluster.lanes.lane_pool import LanePool
from cluster.replica.tier_replica import TierReplica
from engine.api import GenerationRequest, SamplingParams
from engine.config import EngineConfig
from load_tests.prediction.in_process import InProcessClient, plain_engine, stretched_engine
from load_tests.prediction.loads import LOADS, Arrival, arrivals

SWITCH_S = 0.0005  # between two threads

DESCRIPTION = """\
Run replicas with real engines in this process, send them requests in an open loop, and compare the time to the first
token that the router predicted for each with the measured one. Requests of the first --warm-up seconds do not count.

Unless --plain is given, a forward pass of the engine takes as long as one of a larger model would
(load_tests/prediction/stretched_engine.py), so that what else the machine does matters less.

The predictor was made with the load "mixed"; "chat" (short prompts), "documents" (long prompts with shared prefixes)
and "classes" (40 % batch) are others.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """The predictions of one load. Errors are shares of the measured TTFT."""

    load: str
    requests: int
    median_error: float
    p90_error: float
    median_ratio: float  # predicted by measured
    ttft_p50_s: float
    ttft_p99_s: float


def summary(load: str, ttfts: Sequence[tuple[float, float]]) -> Result:
    """Returns the result for predicted and measured TTFTs, of which there are at least two."""
    errors = [abs(predicted - measured) / measured for predicted, measured in ttfts]
    measured = [each for _, each in ttfts]
    return Result(
        load,
        len(ttfts),
        statistics.median(errors),
        statistics.quantiles(errors, n=10)[8],
        statistics.median(predicted / each for predicted, each in ttfts),
        statistics.median(measured),
        statistics.quantiles(measured, n=100)[98],
    )


async def run(name: str, options: argparse.Namespace) -> list[tuple[float, float]]:
    """Returns the predicted and measured TTFTs of one load."""
    load = LOADS[name] if options.rate is None else replace(LOADS[name], rate=options.rate)
    config = EngineConfig(model=options.model, dtype=options.dtype, threads=1)
    make_engine = plain_engine if options.plain else stretched_engine
    tier = TierConfig(name="fast", engine=config)
    replicas = {f"replica-{number}": TierReplica(tier, make_engine) for number in range(options.replicas)}
    loop = asyncio.get_running_loop()
    ttfts: list[tuple[float, float]] = []
    counted_from = loop.time() + options.warm_up

    def first_token(predicted_s: float, measured_s: float) -> None:
        if loop.time() >= counted_from:
            ttfts.append((predicted_s, measured_s))

    pool = LanePool("fast", InProcessClient(replicas), PlacementConfig(), lambda _: None, on_first_token=first_token)
    pool.replicas_changed(replicas)
    began = loop.time()
    answers: set[asyncio.Task[None]] = set()
    for number, arrival in enumerate(arrivals(load, options.seconds, options.seed)):
        await asyncio.sleep(max(0.0, began + arrival.at - loop.time()))
        task = asyncio.create_task(_answer(pool, f"{number}", arrival))
        answers.add(task)
        task.add_done_callback(answers.discard)
    await asyncio.gather(*answers)
    await pool.close()
    return ttfts


async def _answer(pool: LanePool, name: str, arrival: Arrival) -> None:
    params = SamplingParams(temperature=0, max_tokens=arrival.answer_tokens, ignore_eos=True)
    request = GenerationRequest(name, arrival.prompt, params, priority=arrival.priority)
    lane = await pool.acquire(request)
    async with aclosing(lane.generate(request)) as batches:
        async for _ in batches:
            pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the loads one after the other and prints a table. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.prediction",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--load", choices=LOADS, action="append", help="may be repeated; chat and documents")
    add("--seconds", type=float, default=60.0, metavar="S", help="60")
    add("--warm-up", type=float, default=12.0, metavar="S", help="12")
    add("--rate", type=float, metavar="RPS", help="requests/s; the load's own")
    add("--replicas", type=int, default=1, metavar="N", help="1")
    add("--model", default="deployments/models/fast", metavar="PATH", help="deployments/models/fast")
    add("--plain", action="store_true", help="steps as fast as the model is; give a --rate that the machine can serve")
    add("--dtype", default="float32", help="float32")
    add("--seed", type=int, default=0, metavar="N", help="0")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    if not 0 <= options.warm_up < options.seconds or options.replicas < 1:
        parser.error("--warm-up is shorter than --seconds, and --replicas at least 1")
    # Router and replicas have a process each in a cluster. In one, a thread would wait 5 ms for Python's interpreter.
    sys.setswitchinterval(SWITCH_S)
    print(f"{'load':<10} {'requests':>8} {'median error':>13} {'p90':>7} {'ratio':>6} {'TTFT p50':>10} {'p99':>10}")
    results = []
    for name in options.load or ("chat", "documents"):
        result = summary(name, asyncio.run(run(name, options)))
        results.append(asdict(result))
        print(
            f"{name:<10} {result.requests:>8} {result.median_error:>13.1%} {result.p90_error:>7.1%} "
            f"{result.median_ratio:>6.2f} {1000 * result.ttft_p50_s:>7.1f} ms {1000 * result.ttft_p99_s:>7.1f} ms",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
