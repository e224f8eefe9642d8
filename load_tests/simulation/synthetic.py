"""Synthetic traces: a Poisson process whose rate follows a shape, with log-normal lengths. Deterministic by seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.trace import Trace, build

Shape = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
"""The rate at times, in any unit: (seconds [n], duration) → [n]."""

PROMPT_MEDIAN, PROMPT_SIGMA = 900.0, 0.7
OUTPUT_MEDIAN, OUTPUT_SIGMA = 150.0, 0.8
MAX_PROMPT, MAX_OUTPUT = 14_000, 1_500
DECODE_PROMPT, DECODE_OUTPUT = 0.15, 4.0  # times the usual lengths
LONG_SHARE, LONG_TOKENS = 0.01, 100_000  # of the prompts of "unequal"
SQUARE_PERIOD_S = 1200.0  # ten minutes high, ten minutes low
GRID_S = 1.0


def _square(time: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    return np.where(time % SQUARE_PERIOD_S < SQUARE_PERIOD_S / 2, 0.5, 1.5)


def _ramp(time: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    """From a fifth of the mean up for half of the time, and down again."""
    return 0.2 + 1.6 * (1 - np.abs(2 * time / duration - 1))


def _daily(time: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    """Three days pressed into the duration: low at night, with an afternoon dip."""
    day = (3 * time / duration) % 1
    return 1 - 0.65 * np.cos(2 * math.pi * day) + 0.15 * np.cos(4 * math.pi * day + 0.6)


def _flash(time: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    """Steady, but for a crowd that comes within a minute, fivefold, and thins out over ten."""
    since = time - 0.4 * duration
    crowd = np.where(since < 0, 0.0, np.minimum(since / 60, 1.0) * np.exp(-np.maximum(since - 120, 0) / 300))
    return 0.7 + 2.8 * crowd


def _steady(time: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    return np.ones_like(time)


SHAPES: dict[str, Shape] = {
    "square": _square,
    "ramp": _ramp,
    "daily": _daily,
    "flash": _flash,
    "regime": _steady,  # the rate stays, the lengths change
    "steady": _steady,
    "decode": _ramp,  # short prompts and long answers: what decodes is the limit
    "unequal": _ramp,  # a few prompts are a hundred times as long as the others, and fill the cache
}


def synthetic(shape: str, rate: float, duration: float, seed: int = 0) -> Trace:
    """Returns a trace of a mean of about ``rate`` requests/s over ``duration`` seconds.

    At half time of ``regime`` prompts become a third as long and outputs four times. Raises KeyError for an unknown
    shape, ValueError unless rate and duration are positive, and TraceError if no request arrives.
    """
    if not (rate > 0 and duration > 0):
        raise ValueError(f"rate and duration must be positive, got {rate} and {duration}")
    random = np.random.default_rng([seed, 3])
    starts = np.arange(0, duration, GRID_S)
    widths = np.minimum(GRID_S, duration - starts)
    relative = SHAPES[shape](starts, duration)
    counts = random.poisson(rate * relative / np.average(relative, weights=widths) * widths)
    times = np.repeat(starts, counts) + random.random(int(counts.sum())) * np.repeat(widths, counts)
    times.sort()
    later = (shape == "regime") & (times >= duration / 2)
    prompt = random.lognormal(math.log(PROMPT_MEDIAN), PROMPT_SIGMA, len(times)) * np.where(later, 1 / 3, 1.0)
    output = random.lognormal(math.log(OUTPUT_MEDIAN), OUTPUT_SIGMA, len(times)) * np.where(later, 4.0, 1.0)
    if shape == "decode":
        prompt, output = DECODE_PROMPT * prompt, DECODE_OUTPUT * output
    prompt = np.clip(prompt, 1, MAX_PROMPT)
    if shape == "unequal":
        prompt = np.where(random.random(len(times)) < LONG_SHARE, LONG_TOKENS, prompt)
    trace = build(
        shape,
        times.tolist(),
        prompt.astype(int).tolist(),
        np.clip(output, 1, MAX_OUTPUT).astype(int).tolist(),
    )
    return replace(trace, arrival=times, duration=float(duration))
