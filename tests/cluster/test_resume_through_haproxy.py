"""Streams that are cut and resumed on the other router, with the real HAProxy, a real engine and a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_stream_store import RedisStreamStore
from load_tests.access.processes import redis_server
from load_tests.chaos.mix import KINDS, mix
from load_tests.resume.__main__ import RESUMED
from load_tests.resume.measure import Terms, measure
from load_tests.resume.report import clean, report
from load_tests.resume.router_switch import RouterSwitch
from router.config.resume import ResumeConfig
from tests.cluster.haproxy import HeldFor, haproxy
from tests.router.conftest import FAST
from tests.router.engines import EngineBackend
from tests.router.served import CONFIG, KEY, OTHER_KEY, Served

WINDOW_S = 15.0  # within which a busy machine leads to the other router and resumes


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def routers(redis: RedisServer, tmp_path: Path) -> Iterator[list[Served]]:
    """Two routers over one engine, whose answers last a while."""
    engine = EngineBackend(FAST)
    engine.pause_s = 0.01
    config = CONFIG.model_copy(update={"resume": ResumeConfig(window_s=WINDOW_S), "request_timeout_s": 60})
    made = []
    for number in range(2):
        state = StateConfig(journal=tmp_path / str(number), timeout_s=10, background_timeout_s=10)
        served = Served(config, streams=RedisStreamStore(state, redis.url))
        served.backend = engine  # type: ignore[assignment]
        made.append(served)
    yield made
    for served in made:
        served.stop()
    engine.stop()


async def test_cut_streams_of_all_kinds_are_resumed_on_the_other_router(routers: list[Served], tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()  # as in a graph, whose nodes have a directory each
    ports = [int(urlsplit(served.url).port or 0) for served in routers]
    with haproxy(tmp_path / "node", ports, HeldFor(10, 60)) as url:
        requests = mix(2 * len(RESUMED), 40, {kind: KINDS[kind] for kind in RESUMED})
        terms = Terms(len(RESUMED), 60, WINDOW_S, seed=21)
        figures = report(await measure(url, (KEY, OTHER_KEY), requests, RouterSwitch(tmp_path), terms))
    assert figures["examples"] == []
    assert clean(figures), figures
