"""How much of a decode step is Python, and how much the compiled kernels.

    python -m load_tests.engine.step_time 1 8 32

Prints a line for each number of sequences at once: medians over steps in which each of them decodes one token, in
microseconds. ``kernels`` is the call of the compiled step. ``python`` is the rest of ``Engine.step``; its parts are
the phases of a step that the engine's metrics have, ``forward`` without the kernels, and ``other`` what is outside all
phases. ``cpu`` is the processor time of the engine's thread in ``python``, which other programs on the machine disturb
less than the time on the clock.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engine import Engine, GenerationRequest, SamplingParams
from engine.kernels.cpu.library import loaded
from engine.metrics import Phase
from load_tests.engine.shapes import SHAPES, save_shape

PROMPT = 64  # tokens
PHASES = (Phase.SCHEDULE, Phase.FORWARD, Phase.SAMPLE, Phase.EMIT)


class TimedCall:
    """A function that adds up the seconds, and the seconds of its thread's processor time, spent in its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds = self.cpu_s = 0.0

    def __call__(self, *arguments: Any) -> Any:
        cpu, began = time.thread_time(), time.perf_counter()
        try:
            return self._function(*arguments)
        finally:
            self.seconds += time.perf_counter() - began
            self.cpu_s += time.thread_time() - cpu


@dataclass(frozen=True, slots=True)
class StepTime:
    """The parts of one step, in seconds."""

    step: float
    kernels: float
    cpu: float  # processor time of the engine's thread outside the kernels
    phases: tuple[float, ...]  # in the order of PHASES

    @property
    def python(self) -> float:
        """Everything but the kernels."""
        return self.step - self.kernels

    @property
    def parts(self) -> tuple[float, ...]:
        """What ``python`` consists of: the phases without the kernels, and the rest."""
        parts = tuple(s - self.kernels * (phase is Phase.FORWARD) for phase, s in zip(PHASES, self.phases, strict=True))
        return *parts, self.python - sum(parts)


class StepTimer:
    """Runs the steps of an engine on the compiled kernels, and measures them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kernels = TimedCall(loaded().manta_step)
        vars(loaded())["manta_step"] = self._kernels

    def step(self) -> StepTime:
        """Runs one step."""
        kernels, kernels_cpu, phases = self._kernels.seconds, self._kernels.cpu_s, self._phase_totals()
        cpu, began = time.thread_time(), time.perf_counter()
        self._engine.step()
        step, cpu = time.perf_counter() - began, time.thread_time() - cpu
        spent = tuple(after - before for after, before in zip(self._phase_totals(), phases, strict=True))
        return StepTime(step, self._kernels.seconds - kernels, cpu - self._kernels.cpu_s + kernels_cpu, spent)

    def decodes(self, sequences: int, steps: int, params: SamplingParams, draw: random.Random) -> list[StepTime]:
        """Measures ``steps`` steps in which ``sequences`` sequences decode, after as many steps to warm up."""
        for name in range(sequences):
            prompt = tuple(draw.randrange(5, 8000) for _ in range(PROMPT))
            self._engine.add(GenerationRequest(str(name), prompt, params))
        while len(self._engine.step()) < sequences:
            pass  # until all prompts are computed
        for _ in range(steps):
            self._engine.step()
        times = [self.step() for _ in range(steps)]
        self._engine.abort(map(str, range(sequences)))
        return times

    def _phase_totals(self) -> tuple[float, ...]:
        found = self._engine.metrics().phase_s
        return tuple(found[phase].total for phase in PHASES)


def line(sequences: int, times: list[StepTime]) -> str:
    """A line of the table."""
    figures = [
        median(part) for part in zip(*((t.step, t.kernels, t.python, t.cpu, *t.parts) for t in times), strict=True)
    ]
    share = median(t.python / t.step for t in times)
    return f"{sequences:9}" + "".join(f"{1e6 * s:9.0f}" for s in figures) + f"{share:8.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=int, nargs="+", help="at once")
    parser.add_argument("--shape", choices=SHAPES, default="llama-15m", help="of the model, whose weights are random")
    parser.add_argument("--steps", type=int, default=200, help="measured for each number of sequences")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--prefix-caching", action="store_true")
    parser.add_argument("--threads", type=int, help="of the kernels; by default as many as there are cores")
    options = parser.parse_args()
    params = SamplingParams(
        temperature=options.temperature,
        top_p=options.top_p,
        seed=0,
        max_tokens=2 * options.steps + 64,
        ignore_eos=True,
    )
    with tempfile.TemporaryDirectory() as directory:
        engine = Engine.from_pretrained(
            save_shape(options.shape, Path(directory)),
            dtype="bfloat16",
            kernels="compiled",
            prefix_caching=options.prefix_caching,
            kv_cache_tokens=max(options.sequences) * (PROMPT + 2 * options.steps + 128),
            threads=options.threads,
        )
        timer, draw = StepTimer(engine), random.Random(0)
        columns = ("step", "kernels", "python", "cpu", *PHASES, "other")
        print(f"{'sequences':>9}" + "".join(f"{column:>9}" for column in columns) + f"{'share':>8}")
        for sequences in options.sequences:
            print(line(sequences, timer.decodes(sequences, options.steps, params, draw)), flush=True)


if __name__ == "__main__":
    main()
