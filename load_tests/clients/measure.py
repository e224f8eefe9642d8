"""How usual clients fare beside bad ones, and what memory the router and HAProxy have."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from load_tests.clients.attacks import PATH, Attack, Outcome, Target, attack
from load_tests.generator.stats import Summary

MEBIBYTE = 2**20
OPENING_S = 2.0  # over which bad clients connect


@dataclass(slots=True)
class Fared:
    """What usual clients got: the seconds from a request to its whole answer, and how many failed."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


async def usual_clients(url: str, key: str, clients: int, duration_s: float, max_tokens: int) -> Fared:
    """Has ``clients`` ask one request after the other for ``duration_s`` seconds. Returns how they fared."""
    fared, end = Fared(), time.perf_counter() + duration_s
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {key}"}

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        place = 0
        while time.perf_counter() < end:
            began, place = time.perf_counter(), place + 1
            content = f"Client {number} asks question {place} of {began}."
            body = {
                "model": "fast",
                "messages": [{"role": "user", "content": content}],
                "max_tokens": max_tokens,
                "ignore_eos": True,
                "stream": True,
            }
            try:
                response = await client.post(PATH, json=body)
                whole = response.status_code == 200 and response.text.rstrip().endswith("[DONE]")
            except httpx.TransportError:
                whole = False
            fared.failed += not whole
            fared.seconds.append(time.perf_counter() - began)

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(ask(client, number) for number in range(clients)))
    return fared


class BadClients:
    """Connections of one attack, which are opened within OPENING_S and stay until ``close``."""

    def __init__(self, kind: Attack, target: Target, connections: int) -> None:
        self._outcomes: list[Outcome] = []
        self._tasks = [
            asyncio.create_task(self._run(kind, target, number, connections)) for number in range(connections)
        ]

    async def _run(self, kind: Attack, target: Target, number: int, connections: int) -> None:
        await asyncio.sleep(OPENING_S * number / connections)
        self._outcomes.append(outcome := Outcome())
        await attack(kind, target, number, outcome)

    async def close(self) -> list[Outcome]:
        """Ends the connections that are left. Returns the outcomes of all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        return self._outcomes


def memory_mb(pids: Sequence[int]) -> float:
    """Returns the memory that these processes have for themselves (USS), in MiB."""
    return round(sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / MEBIBYTE, 1)


def kernel_memory_mb() -> float:
    """Returns what Linux holds for sent and received data of all TCP connections of the machine, in MiB: buffers that
    no process has for itself. 0 on other systems."""
    path = Path("/proc/net/sockstat")
    found = re.search(r"^TCP:.* mem (\d+)", path.read_text() if path.exists() else "", re.MULTILINE)
    return round(int(found[1]) * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE, 1) if found else 0.0


def haproxy_pids() -> list[int]:
    """Returns the processes of HAProxy, which are descendants of this process."""
    return [child.pid for child in psutil.Process().children(recursive=True) if child.name() == "haproxy"]


def report(phases: Sequence[Fared], outcomes: Sequence[Outcome], connections: int) -> dict[str, Any]:
    """Returns the figures: ``phases`` are before, during and after the attack. Pure."""
    p99 = [1000 * Summary.of(phase.seconds).p99 for phase in phases]
    closed = Summary.of(each.closed_s for each in outcomes if each.closed_s is not None)
    return {
        "connections": connections,
        "requests": [len(phase.seconds) for phase in phases],
        "failed": [phase.failed for phase in phases],
        "p50_ms": [round(1000 * Summary.of(phase.seconds).p50, 1) for phase in phases],
        "p99_ms": [round(each, 1) for each in p99],
        "p99_ratio": round(p99[1] / p99[0], 2),
        "closed_by_server": closed.count,
        "closed_after_s": {"p50": _rounded(closed.p50), "max": _rounded(closed.max)},
        "statuses": dict(Counter(str(each.status) for each in outcomes)),
    }


def _rounded(seconds: float) -> float | None:
    return round(seconds, 1) if seconds == seconds else None
