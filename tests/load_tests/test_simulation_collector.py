"""The garbage collector stands still during a simulation, and is as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from load_tests.simulation.observation import Observation
from load_tests.simulation.profile import PROFILES
from load_tests.simulation.simulation import Settings, Simulation
from load_tests.simulation.synthetic import synthetic


@pytest.fixture
def enabled_collector() -> Iterator[None]:
    before = gc.isenabled()
    gc.enable()
    yield
    if not before:
        gc.disable()


class _Watching:
    """A policy that keeps one replica, and notes whether the collector runs. It fails at ``fails_at_s``."""

    name = "watching"
    interval_s = 1.0

    def __init__(self, fails_at_s: float = float("inf")) -> None:
        self.seen: list[bool] = []
        self._fails_at_s = fails_at_s

    def decide(self, seen: Observation) -> int:
        self.seen.append(gc.isenabled())
        if seen.at >= self._fails_at_s:
            raise RuntimeError("this policy fails")
        return 1


def _simulation(policy: _Watching) -> Simulation:
    return Simulation(synthetic("steady", 1.0, 10.0, 0), policy, Settings(PROFILES["70b-h200"]))


@pytest.mark.usefixtures("enabled_collector")
def test_nothing_is_collected_during_a_run() -> None:
    policy = _Watching()
    _simulation(policy).run()
    assert policy.seen
    assert not any(policy.seen)
    assert gc.isenabled()


@pytest.mark.usefixtures("enabled_collector")
def test_the_collector_runs_again_after_a_run_that_failed() -> None:
    with pytest.raises(RuntimeError):
        _simulation(_Watching(fails_at_s=2.0)).run()
    assert gc.isenabled()


@pytest.mark.usefixtures("enabled_collector")
def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    _simulation(_Watching()).run()
    assert not gc.isenabled()
