"""Routers behind a real HTTP server: over a scripted backend, over an engine, with a guard, with a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safety.streaming.plan import ScannerRule
from tests.router.backend import ScriptedBackend
from tests.router.cached import Cached
from tests.router.engines import EngineBackend
from tests.router.guarded import Guarded
from tests.router.guarded_answers import Guarded as GuardedAnswers
from tests.router.loaded import CONFIG as SMALL
from tests.router.loaded import LoadedBackend
from tests.router.served import Served
from tests.safety.scripted import ScriptedClassifier

FAST = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"


@pytest.fixture
async def cached() -> Cached:
    return Cached()


@pytest.fixture(scope="session")
def _server() -> Iterator[Served]:
    served = Served()
    yield served
    served.stop()


@pytest.fixture
def served(_server: Served) -> Served:
    """The session's server with a fresh backend."""
    _server.backend = ScriptedBackend()
    return _server


@pytest.fixture(scope="session")
def backend() -> Iterator[EngineBackend]:
    """A real engine, for what a scripted one cannot show."""
    made = EngineBackend(FAST)
    yield made
    made.stop()


@pytest.fixture
def real(served: Served, backend: EngineBackend) -> Served:
    """The session's server over a real engine."""
    served.backend = backend  # type: ignore[assignment]
    return served


@pytest.fixture(scope="module")
def _guarded() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.served.stop()


@pytest.fixture
def guarded(_guarded: Guarded) -> Guarded:
    """The module's router with a guard, without what earlier tests have left."""
    _guarded.reset()
    return _guarded


@pytest.fixture(params=["scanners", "hold", "beside"])
def make_guarded(request: pytest.FixtureRequest) -> Iterator[type[GuardedAnswers] | object]:
    """Guards with the same scanners: alone, and with a classifier that finds nothing."""

    def make(*scanners: ScannerRule, **more: object) -> GuardedAnswers:
        if request.param != "scanners":
            more |= {"classifier": ScriptedClassifier(), "mode": request.param}
        return GuardedAnswers(*scanners, **more)  # type: ignore[arg-type]

    return make  # type: ignore[return-value]


@pytest.fixture(scope="module")
def _small() -> Iterator[Served]:
    served = Served(SMALL)
    yield served
    served.stop()


@pytest.fixture
def small(_small: Served) -> Served:
    """A server whose tier ``fast`` lets one request of each class wait, with a fresh backend."""
    _small.backend = LoadedBackend()
    return _small
