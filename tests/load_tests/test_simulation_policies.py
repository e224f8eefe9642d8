"""Policies, the oracle, placement and the command of the simulator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from load_tests.simulation.__main__ import main
from load_tests.simulation.measures import measure
from load_tests.simulation.observation import Counters, Latencies, Observation, Policy, ReplicaView, Starting
from load_tests.simulation.oracle import OracleSearch, ahead
from load_tests.simulation.policies.fixed import FixedPolicy
from load_tests.simulation.policies.keda import KedaPolicy
from load_tests.simulation.policies.kpa import KpaPolicy
from load_tests.simulation.policies.planner import PlannerPolicy
from load_tests.simulation.policies.serve_default import ServeDefaultPolicy
from load_tests.simulation.prefix_cache import PrefixCaches
from load_tests.simulation.profile import PROFILES, ReplicaProfile
from load_tests.simulation.simulation import Settings, Simulation
from load_tests.simulation.slo import Slo
from load_tests.simulation.synthetic import synthetic
from load_tests.simulation.tier import Tier

PROFILE = ReplicaProfile("test", "none", 1, 10_000, 0.010, 50e-6, 50e-9, 512, 100_000, 64)
TIER = Tier(PROFILE, Slo(), 1, 100, 60.0, prompt=500.0, cached=0.0, output=100.0, capacity_rps=10.0, ongoing=10.0)


@dataclass
class Shown:
    """A replica as a policy sees it."""

    outstanding: int = 0
    waiting: Sequence[int] = ()
    backlog_s: float = 0.0
    kv_reserved: int = 0
    step_now_s: float = 0.0
    slot: int = 0
    prefilling: int = 0
    decoding: int = 0
    prompt_tokens: int = 0
    kv_resident: float = 0.0


def seen(
    at: float, target: int, ready: Sequence[ReplicaView], starting: int = 0, counters: Counters | None = None
) -> Observation:
    return Observation(
        at=at,
        target=target,
        ready=ready,
        starting=[Starting(slot, at) for slot in range(starting)],
        draining=(),
        ready_since=[0.0] * len(ready),
        room=(),
        room_since=at,
        counters=(counters or Counters(), Counters()),
        latencies=(Latencies(), Latencies()),
    )


def targets(
    policy: Policy, shown: Sequence[ReplicaView], seconds: float, begin: float = 0.0, start: int = 1
) -> list[int]:
    """The targets of a policy that sees the same replicas for some time, as if a new one were never ready."""
    result, target, now = [], start, begin
    while now < begin + seconds:
        target = policy.decide(seen(now, target, shown))
        result.append(target)
        now += policy.interval_s
    return result


def test_serves_default_goes_up_after_30_s_and_down_after_600_s() -> None:
    policy = ServeDefaultPolicy(TIER)

    up = targets(policy, [Shown(45)], 60)
    down = targets(policy, [Shown(5)], 700, begin=60, start=5)

    assert (up.index(5), up[29]) == (30, 1)
    assert set(down[:600]) == {5}
    assert down[-1] == 1


def test_kedas_hpa_at_most_doubles_and_goes_down_after_five_minutes() -> None:
    policy = KedaPolicy(TIER)

    up = targets(policy, [Shown(waiting=range(200))], 60)
    down = targets(policy, [Shown()], 330, begin=60, start=up[-1])

    assert up == [5, 10, 20, 40]
    assert down[19] == 40
    assert down[-1] == 1


def test_kpa_panics_on_a_short_burst_and_holds_the_highest_target() -> None:
    policy = KpaPolicy(TIER)
    targets(policy, [Shown(8)], 60)

    burst = targets(policy, [Shown(100)], 8, begin=60)
    after = targets(policy, [Shown(8)], 120, begin=68, start=burst[-1])

    assert burst[-1] == 10  # the panic window; the stable one has 20 on average
    assert set(after[:25]) == {10}
    assert after[-1] == 1


def test_the_planner_goes_up_by_one_if_all_replicas_would_miss_and_waits_for_starts() -> None:
    policy = PlannerPolicy(TIER)
    late, idle = Shown(backlog_s=3.0), Shown()

    assert policy.decide(seen(0, 2, [late, late])) == 3
    assert policy.decide(seen(5, 2, [late, idle])) == 2
    assert policy.decide(seen(10, 3, [late, late], starting=1)) == 3


def test_the_planners_floor_follows_the_forecast() -> None:
    policy = PlannerPolicy(TIER)
    counters = Counters()
    result = []
    for number in range(4):
        counters.arrivals += 1800 * (number + 1)  # 10, 20, 30 requests/s over 180 s
        counters.uncached_tokens += 500.0 * 1800 * (number + 1)
        counters.finished += 100
        counters.output_tokens += 10_000
        result.append(policy.decide(seen(180.0 * (number + 1), 1, [Shown()], counters=counters)))

    assert result == sorted(result)
    assert result[0] == 1
    assert result[-1] >= 4


def test_static_replicas_follow_their_steps() -> None:
    policy = FixedPolicy([(0.0, 2), (10.0, 5)])

    assert [policy.decide(seen(at, 1, [])) for at in (0.0, 9.9, 10.0, 99.0)] == [2, 2, 5, 5]


def test_prefix_caches_evict_what_was_used_longest_ago() -> None:
    caches = PrefixCaches()
    caches.remember(0, (1, 2, 3), 4)
    caches.remember(0, (1, 4), 4)
    caches.remember(0, (5,), 4)

    assert caches.matched(0, (1, 2, 3)) == 2  # 3, the end of the oldest prompt, is gone
    assert caches.matched(0, (1, 4)) == 2
    assert list(caches.holders((1, 2))) == [0]
    caches.drop(0)
    assert caches.matched(0, (1,)) == 0
    assert list(caches.holders((1, 2))) == []


def test_replicas_are_ordered_a_cold_start_ahead_and_kept_over_short_dips() -> None:
    steps = ahead(np.array([1, 1, 1, 1, 1, 1, 3, 3, 1, 3, 1, 1, 1, 1]), cold_start_s=25.0)

    assert steps == [(0.0, 1), (30.0, 3), (100.0, 1)]


def test_the_oracle_keeps_the_objectives_with_fewer_hours_than_any_static_number() -> None:
    profile = PROFILES["70b-h100x2"]
    trace = synthetic("square", rate=3, duration=2400, seed=1)
    trace = replace(trace, arrival=trace.arrival / 4, duration=600.0)  # a square wave of five minutes, 4 x the rate
    settings = Settings(profile, cold_start_s=20, replicas_max=40)

    best = OracleSearch(trace, settings, runs=6).run()

    assert best is not None
    assert best.measures.attainment >= 0.99
    for count in range(1, best.measures.peak_replicas + 1):
        static = replace(settings, replicas_start=count)
        found = measure(Simulation(trace, FixedPolicy([(0.0, count)]), static, max_late=len(trace) // 100).run())
        assert found.attainment < 0.99 or found.gpu_hours > best.measures.gpu_hours


def test_without_enough_replicas_there_is_no_oracle() -> None:
    trace = synthetic("steady", rate=30, duration=60)

    assert OracleSearch(trace, Settings(PROFILES["70b-h200"], replicas_max=1), runs=6).run() is None


COMMON = ["--synthetic", "steady", "--rate", "4", "--duration", "60", "--no-progress"]


def test_the_command_prints_its_measures_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "run.json", tmp_path / "run.html"

    code = main([*COMMON, "--policy", "serve", "--oracle-runs", "4", "--json", str(file), "--plot", str(page)])

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert {"attainment", "gpu_hours", "oracle_gpu_hours", "requests", "wall_s"} <= printed.keys()
    assert printed["attainment"] == 1.0
    assert printed["oracle_gpu_hours"] == pytest.approx(printed["gpu_hours"])
    assert json.loads(file.read_text(encoding="utf-8")) == printed
    assert "data:image/svg+xml" in page.read_text(encoding="utf-8")


def test_two_runs_of_the_command_give_the_same_measures(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        main([*COMMON, "--policy", "kpa", "--no-oracle", "--failures", "20", "--batch-share", "0.2", "--seed", "3"])
        printed.append(json.loads(capsys.readouterr().out) | {"wall_s": 0})

    assert printed[0] == printed[1]
    assert set(printed[0]["classes"]) == {"interactive", "batch"}


def test_ten_thousand_replicas_run_as_a_fluid(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*COMMON, "--fluid", "--scale", "20000", "--policy", "static:10000", "--replicas-max", "10000"])

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert printed["peak_replicas"] == 10_000
    assert printed["requests"] > 4_000_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["--trace", "nowhere.csv", "--no-oracle"],
        [*COMMON, "--policy", "magic"],
        [*COMMON, "--replicas-min", "0"],
        [*COMMON, "--scale", "0"],
        [*COMMON, "--scale", "nan"],
        [*COMMON, "--stuck", "1"],
        [*COMMON, "--trace", "a.csv"],
        [],
    ],
)
def test_what_cannot_run_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as ended:
        code = ended.code

    assert code == 2
    assert capsys.readouterr().err
