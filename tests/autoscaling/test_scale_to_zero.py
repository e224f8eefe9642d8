from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.autoscaling.config import WaitingRoomConfig
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.snapshot import WaitingRoom
from cluster.autoscaling.zero_replica_admission import admit, expired
from tests.autoscaling.snapshots import Bench, config_of

ZERO = config_of(min=0, idle_s=60)


def test_an_idle_tier_goes_to_zero_and_stays_there() -> None:
    bench = Bench(config=ZERO, replicas=2)
    targets = [decision.target for decision in bench.run(200)]

    assert targets[:60] == [2] * 60
    assert targets[-100:] == [0] * 100


@pytest.mark.parametrize("load", [{"running": 1}, {"rate": 0.2}], ids=str)
def test_a_tier_in_use_keeps_a_replica(load: dict[str, float]) -> None:
    bench = Bench(config=ZERO, replicas=1, **load)  # type: ignore[arg-type]  # one field each
    assert {decision.target for decision in bench.run(200)} == {1}


def test_the_first_request_starts_a_replica_at_once() -> None:
    bench = Bench(config=ZERO, replicas=0)
    bench.run(30)
    bench.waiting_room = WaitingRoom(1, 500.0, 0.2)

    decision = bench.tick()

    assert (decision.target, decision.reason) == (1, Reason.WAITING_ROOM)


def test_a_tier_that_has_been_measured_starts_as_many_as_the_waiting_need() -> None:
    bench = Bench(config=ZERO, replicas=4, rate=20.0, running=20)
    bench.run(60)
    bench.replicas = bench.target = 0
    bench.waiting_room = WaitingRoom(200, 100_000.0, 5.0)

    assert bench.tick().target > 1


def test_stale_metrics_do_not_send_a_tier_to_zero() -> None:
    bench = Bench(config=ZERO, replicas=2)
    bench.edit = lambda at_s, tier: replace(tier, replicas=tuple(replace(r, sample=None) for r in tier.replicas))
    assert {decision.target for decision in bench.run(200)} == {2}


def test_a_minimum_above_zero_is_never_left() -> None:
    assert Bench(replicas=2).run(300)[-1].target == 1


def test_a_warm_pool_is_ordered_with_the_tier() -> None:
    bench = Bench(config=config_of(min=1, warm=2), replicas=1)
    assert bench.tick().warm == 2


def test_the_waiting_room_is_bounded() -> None:
    config = WaitingRoomConfig(max_requests=3, ttl_s=60)

    assert admit(config, WaitingRoom(2), cold_start_s=30) is None
    refused = admit(config, WaitingRoom(3), cold_start_s=30, started_s=10)

    assert refused is not None
    assert refused.retry_after_s == 20


def test_a_request_does_not_wait_for_a_start_that_takes_too_long() -> None:
    config = WaitingRoomConfig(ttl_s=60)

    refused = admit(config, WaitingRoom(), cold_start_s=300)

    assert refused is not None
    assert "300 s" in refused.why
    assert admit(config, WaitingRoom(), cold_start_s=300, started_s=280) is None
    assert expired(config, 60)
    assert not expired(config, 59.9)
