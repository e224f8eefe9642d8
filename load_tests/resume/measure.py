"""``measure``: the streams of a run, in waves, each begun on one router and resumed on the other."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from tqdm import tqdm

from load_tests.chaos.client import send_all
from load_tests.chaos.mix import Request
from load_tests.resume.client import run_cut, status_of
from load_tests.resume.cuts import cut_streams
from load_tests.resume.report import Wave
from load_tests.resume.router_switch import RouterSwitch

MARGIN_S = 1.0  # after the window


class UnsoundError(Exception):
    """There is nothing to compare with; the message says why."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How streams are sent: ``at_once`` of them, each for at most ``timeout_s`` seconds. ``window_s``: for how long the
    service keeps events after the end of a stream. ``seed``: of the moments of the cuts."""

    at_once: int
    timeout_s: float
    window_s: float
    seed: int


async def measure(
    url: str, keys: tuple[str, str], requests: Sequence[Request], switch: RouterSwitch, terms: Terms
) -> list[Wave]:
    """Returns the waves of ``requests`` to the service at ``url``. ``keys`` are the API key of their client, and one
    that may not read its streams. Raises UnsoundError."""
    chance, waves = random.Random(terms.seed), list[Wave]()
    client: dict[str, Any] = {"headers": {"authorization": f"Bearer {keys[0]}"}, "trust_env": False}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=terms.timeout_s, limits=limits, **client) as http:
        with tqdm(total=len(requests), unit="stream", desc="resume", file=sys.stderr) as bar:
            for start in range(0, len(requests), terms.at_once):
                part = requests[start : start + terms.at_once]
                expected = await send_all(url, keys[0], part, terms.timeout_s)
                if (problem := next((each.problem for each in expected if each.problem), None)) is not None:
                    raise UnsoundError(f"undisturbed: {problem}")
                wave = Wave(cut_streams(part, expected, chance), expected)
                await _run(wave, http, switch, len(waves) % 2, terms.timeout_s)
                wave.foreign = [await status_of(http, each.stream_id, keys[1]) for each in wave.streams]
                waves.append(wave)
                bar.update(len(part))
        await asyncio.sleep(terms.window_s + MARGIN_S)
        for wave in waves:
            wave.late = [await status_of(http, each.stream_id) for each in wave.streams]
    return waves


async def _run(wave: Wave, http: httpx.AsyncClient, switch: RouterSwitch, first: int, timeout_s: float) -> None:
    """Begins the streams on the router ``first``, and has them resumed on the other one once all have begun."""
    await asyncio.to_thread(switch.lead_to, first)
    switched = asyncio.Event()
    running = [asyncio.create_task(run_cut(each, http, http, switched, timeout_s)) for each in wave.streams]
    await asyncio.gather(*(each.opened.wait() for each in wave.streams))
    await asyncio.to_thread(switch.lead_to, 1 - first)
    before = switch.requests(first), switch.requests(1 - first)
    switched.set()
    await asyncio.gather(*running)
    wave.led = switch.requests(first) - before[0], switch.requests(1 - first) - before[1]
