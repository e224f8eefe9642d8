"""``manta top``: what it asks, what it shows of a service in any state, and its keys in a real terminal."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from rich.console import Console
from typer.testing import CliRunner

from cluster.admin.client import AdminClient, AdminError
from cluster.admin.main import app
from cluster.admin.top_commands import svg
from cluster.admin.top_numbers import Latency, Overview, glance, percentiles
from cluster.admin.top_view import SORTS, page
from engine.api import LATENCY_BOUNDS_S
from tests.access.service import ADMIN, Service
from tests.admin.command import document, manta
from tests.admin.overviews import BUCKETS, overview, shown
from tests.router.backend import ScriptedBackend

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "manta-top.svg"


def test_it_is_printed_once_with_rates_of_two_looks(counted_service: Service) -> None:
    counted_service.virtual = Service().virtual
    text = manta(counted_service, "top", "--once", "--every", "0.5").stdout
    for word in ("fast", "1/3", "TTFT P50", "standard", "classifier open", "100 ms", "since the engines' start"):
        assert word in text, text


def test_the_json_is_strict_and_says_null_for_what_is_not_known(counted_service: Service) -> None:
    found = document(manta(counted_service, "top", "--json", "--every", "0.5"))
    fast, balanced, _ = found["tiers"]
    assert fast["ttft"] == {"p50_s": 0.1, "p99_s": 0.1}
    assert balanced["ttft"] == {"p50_s": None, "p99_s": None}
    assert [row["name"] for row in found["classes"]] == ["interactive", "standard", "batch"]
    assert {row["name"]: row["refused"] for row in found["classes"]}["batch"] == 2


@pytest.mark.parametrize("key", ["sk-user", "sk-viewer", "sk-other"])
def test_other_roles_and_tenants_see_nothing(counted_service: Service, key: str) -> None:
    result = manta(counted_service, "top", "--once", key=key)
    assert result.exit_code != 0
    assert "403" in str(result.exception)
    assert "fast" not in result.output


def tier(**fields: Any) -> dict[str, Any]:
    return {
        "tier": "fast",
        "model": "m",
        "ready": True,
        "wanted": 1,
        "replicas": 1,
        "running": 0,
        "waiting": 0,
    } | fields


def engines(generated: int = 0, itl: Sequence[int] = (0,) * BUCKETS) -> dict[str, Any]:
    each = {"waiting": 0, "arrivals": 0, "refused": 0, "ttft": list(itl)}
    return {"classes": {"standard": each}, "itl": list(itl), "generated_tokens": generated}


def seen(at: float, *tiers: Overview, **fields: Any) -> dict[str, Any]:
    return {"now": at, "bounds_s": LATENCY_BOUNDS_S, "tiers": list(tiers)} | fields


@pytest.mark.parametrize(
    "overviews",
    [
        [{"now": 1.0}],
        [seen(1.0)],
        [seen(1.0, tier(ready=False, replicas=0, wanted=None, wait_s=None, kv_used=None, engines=None))],
        [seen(1.0, tier(ready=False, replicas=0, engines=engines()), today=None, router=None, breakers=None)],
        [seen(1.0, tier(engines=None)), seen(2.0, tier(engines=engines(5)))],
        [seen(1.0, tier(engines=engines(5))), seen(2.0, tier(engines=None))],
        [seen(1.0, tier(engines=engines(5))), seen(1.0, tier(engines=engines(9)))],  # no time between
        [seen(1.0), seen(2.0, tier(tier="new", engines=engines(5, [0] * (BUCKETS - 1) + [7])))],
        [seen(1.0, tier(model="\x1b[2Jevil\n[bold]markup", kv_used=1.7, engines={**engines(), "itl": [1, 2]}))],
        [seen(1.0, today={"requests": 0, "cache_hits": 0})],
    ],
)
@pytest.mark.parametrize("since_start", [True, False])
def test_any_state_of_a_service_can_be_shown(overviews: list[dict[str, Any]], since_start: bool) -> None:
    found = glance(overviews, since_start=since_start)
    for sort in SORTS:
        text = shown(found, sort=sort, reverse=True, error="[/] the service is away", keys=True)
        assert "manta" in text
        assert "\x1b" not in text
        assert "None" not in text
        assert "nan" not in text


def test_rates_are_of_the_window_and_never_negative() -> None:
    def rate(before: int, after: int) -> float | None:
        found = glance([seen(10.0, tier(engines=engines(before))), seen(12.0, tier(engines=engines(after)))])
        assert found.tokens_per_s == found.tiers[0].tokens_per_s
        return found.tokens_per_s

    assert rate(100, 300) == 100.0
    assert rate(300, 100) == 0.0  # a replica has ended, and another begins at 0


@pytest.mark.parametrize(("cost", "text"), [(0, "0.00 USD"), (0.0000312, "0.000031 USD"), (1234.5, "1,234.50 USD")])
def test_a_small_cost_is_not_shown_as_nothing(cost: float, text: str) -> None:
    assert f"cost {text}" in shown(glance([seen(1.0, today={"cost": cost}, currency="USD")]))


def test_percentiles_are_of_the_window_or_since_the_start() -> None:
    old, new = [0] * BUCKETS, [0] * BUCKETS
    old[0], new[0], new[8] = 1000, 1000, 3
    looks = [seen(1.0, tier(engines=engines(0, old))), seen(9.0, tier(engines=engines(0, new)))]
    assert glance(looks).tiers[0].itl == Latency(0.5, 0.5)
    assert glance(looks, since_start=True).tiers[0].itl == Latency(0.001, 0.001)


def test_values_above_all_buckets_are_given_as_the_highest_bound() -> None:
    assert percentiles([0] * (BUCKETS - 1) + [1], LATENCY_BOUNDS_S) == Latency(120.0, 120.0)
    assert percentiles([], LATENCY_BOUNDS_S) == Latency()
    assert percentiles([0] * BUCKETS, LATENCY_BOUNDS_S) == Latency()


def busy() -> list[dict[str, Any]]:
    """Two looks at a service with work, as the picture in docs/ shows it."""

    def at(now: float, part: float) -> dict[str, Any]:
        times, slow = [0] * BUCKETS, [0] * BUCKETS
        times[4], times[5], times[7] = int(9000 * part), int(2000 * part), int(60 * part)
        slow[7], slow[9], slow[10] = int(900 * part), int(300 * part), int(20 * part)

        def counts(generated: int) -> dict[str, Any]:
            rows = {
                "interactive": {"waiting": 0, "arrivals": int(900 * part), "refused": 0, "ttft": times},
                "standard": {"waiting": 7, "arrivals": int(2400 * part), "refused": 12, "ttft": slow},
                "batch": {"waiting": 41, "arrivals": int(300 * part), "refused": 0, "ttft": slow},
            }
            return {"classes": rows, "itl": times, "generated_tokens": int(generated * part)}

        def row(name: str, model: str, wanted: int, had: int, run: int, wait: int, kv: float, made: int) -> Overview:
            load = {"running": run, "waiting": wait, "wait_s": wait / 20, "kv_used": kv, "engines": counts(made)}
            return tier(tier=name, model=model, wanted=wanted, replicas=had) | load

        return seen(
            now,
            row("fast", "Qwen3-0.6B", 4, 4, 212, 0, 0.41, 540_000),
            row("balanced", "Qwen3-8B", 6, 5, 301, 44, 0.93, 410_000),
            row("frontier", "Qwen3-14B", 2, 2, 64, 4, 0.67, 95_000),
            currency="USD",
            today={
                "requests": int(181_000 + 3600 * part),
                "input_tokens": 96_400_210,
                "output_tokens": 41_223_904,
                "cache_hits": 26_110,
                "cost": 214.37,
                "outcomes": {"finished": 182_811, "cancelled": 1_204, "failed": 585},
            },
            router={"id": "a", "limited": {"requests_per_minute": 311}, "safety": {"blocked": 92}, "failovers": {}},
            breakers={"requests": "closed", "background": "closed", "classifier": "closed", "embedder": "open"},
        )

    return [at(1_795_773_600.0, 1.0), at(1_795_773_630.0, 2.0)]


def test_the_picture_in_the_documentation_is_what_is_drawn() -> None:
    drawn = svg(page(glance(busy()), keys=True))
    if os.environ.get("WRITE_PICTURES"):
        PICTURE.write_text(drawn, encoding="utf-8")
    assert PICTURE.read_text(encoding="utf-8") == drawn, "WRITE_PICTURES=1 pytest tests/admin/test_top_command.py"


def test_a_picture_is_written_where_it_is_asked_for(counted_service: Service, tmp_path: Path) -> None:
    manta(counted_service, "top", "--every", "0.5", "--svg", str(tmp_path / "top.svg"))
    assert (tmp_path / "top.svg").read_text(encoding="utf-8").startswith("<svg")


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The service behind a real HTTP server; its address."""
    server = uvicorn.Server(uvicorn.Config(service.app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class Terminal:
    """A real terminal with ``manta top`` in it."""

    def __init__(self, url: str) -> None:
        self._screen, slave = pty.openpty()
        environment = {**os.environ, "MANTA_ADMIN_KEY": ADMIN, "TERM": "xterm", "COLUMNS": "132", "LINES": "40"}
        command = [sys.executable, "-m", "cluster.admin", "--url", url, "top", "--every", "0.5"]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=ROOT)
        os.close(slave)
        self._text = ""

    def wait_for(self, pattern: str, timeout_s: float = 30.0) -> None:
        """Reads until the screen has had ``pattern``, and forgets what it had."""
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self._text):
            assert time.monotonic() < deadline, self._text
            if select.select([self._screen], [], [], 0.2)[0]:
                self._text += os.read(self._screen, 65536).decode("utf-8", "replace")
        self._text = ""

    def press(self, key: str) -> None:
        os.write(self._screen, key.encode())

    def end(self) -> int:
        status = self.process.wait(timeout=20)
        os.close(self._screen)
        return status


def test_it_is_drawn_again_and_again_and_obeys_keys(counted_service: Service) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not away:
            await counted_service.app(scope, receive, send)

    away: list[bool] = []
    running = Service()
    running.app = app
    counted_service.virtual = running.virtual
    with listening(running) as url:
        terminal = Terminal(url)
        terminal.wait_for("q quit")
        terminal.press("s")
        terminal.wait_for("sorted by waiting")
        away.append(True)
        terminal.wait_for("These numbers are old")
        away.clear()
        terminal.press("q")
        assert terminal.end() == 0


def test_a_service_that_hangs_does_not_keep_q_from_its_effect(counted_service: Service) -> None:
    hangs: list[bool] = []
    inner = counted_service.app

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if hangs:
            await asyncio.sleep(10)
        await inner(scope, receive, send)

    counted_service.app = app
    with listening(counted_service) as url:
        terminal = Terminal(url)
        terminal.wait_for("q quit")
        hangs.append(True)
        terminal.wait_for("no answer for")
        began = time.monotonic()
        terminal.press("q")
        assert terminal.end() == 0
        assert time.monotonic() - began < 5


def test_without_a_service_it_says_so_and_ends() -> None:
    terminal = Terminal("http://127.0.0.1:9")
    terminal.wait_for("manta: http://127.0.0.1:9 cannot be reached")
    assert terminal.end() == 1


@pytest.mark.parametrize("width", [80, 100, 132])
def test_long_names_leave_the_numbers_their_room(width: int) -> None:
    load = {"replicas": 12, "running": 345, "waiting": 6789, "wait_s": 12.3, "kv_used": 0.55}
    names = {"tier": "frontier-" + "x" * 40, "model": "/models/org/a model of " + "m" * 60}
    found = {"now": 1.0, "tiers": [{**names, **load, "ready": True, "wanted": 13, "engines": None}]}
    console = Console(width=width, file=io.StringIO())
    console.print(page(glance([found]), width=width))
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if "fronti" in line]
    assert len(lines) == 1
    for number in ("12/13", "345", "6789", "12.3", "55%"):
        assert f" {number} " in lines[0]


def test_a_tier_that_is_at_zero_as_it_may_be_is_no_fault() -> None:
    backend = ScriptedBackend(ready=False)
    backend.scales_to_zero = True
    found = asyncio.run(overview(Service(backend=backend)))
    assert all(tier["ready"] for tier in found["tiers"])
    assert all(tier["wait_s"] is None for tier in found["tiers"])


@pytest.mark.parametrize("text", ["<html>not Manta</html>", "[]", "{}", "null"])
@pytest.mark.parametrize("options", [("--once",), ("--json",)])
def test_another_service_is_told_in_one_line(text: str, options: tuple[str, ...]) -> None:
    client = AdminClient("http://other", "", httpx.MockTransport(lambda _: httpx.Response(200, text=text)))
    result = CliRunner().invoke(app, ["top", *options], obj=client)
    assert isinstance(result.exception, AdminError)
    assert "no Manta service" in str(result.exception)


def test_a_backend_without_any_ready_replica_is_shown() -> None:
    found = asyncio.run(overview(Service(backend=ScriptedBackend(ready=False))))
    assert json.dumps(found, allow_nan=False)
    assert "0/?" in shown(glance([found]))
