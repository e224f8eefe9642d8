"""The scaler of an application, which Serve asks for one tier at a time, many times a second."""

from __future__ import annotations

import pytest

from cluster.autoscaling.application_scaler import LOST_S, ApplicationScaler
from cluster.autoscaling.config import AutoscalingConfig, TierScalingConfig
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.snapshot import Pin, WaitingRoom
from tests.autoscaling.serve_loop import TICK_S, Serve, T, config_of


def test_a_queue_raises_the_target_of_its_tier_alone() -> None:
    serve = Serve(config_of("fast", "frontier"))
    serve.run(3)
    assert serve.targets == {"fast": 1, "frontier": 1}
    serve.queued["fast"] = 60_000.0
    serve.run(5)
    assert serve.targets["fast"] > 1
    assert serve.targets["frontier"] == 1


def test_one_decision_is_made_for_all_tiers_in_each_interval() -> None:
    serve = Serve(config_of("fast", "frontier"))
    serve.run(10)
    assert len(serve.decisions) == 10
    assert all(set(each.tiers) == {"fast", "frontier"} for each in serve.decisions)
    assert serve.reads == 2 * 10


def test_tiers_that_share_gpus_get_no_more_than_there_are() -> None:
    serve = Serve(config_of("fast", "frontier", gpus=5))
    serve.queued = {"fast": 80_000.0, "frontier": 80_000.0}
    serve.run(60)
    assert sum(serve.targets.values()) == 5


def test_a_restarted_controller_goes_on_from_the_replicas_that_there_are() -> None:
    serve = Serve(config_of("fast"))
    serve.queued["fast"] = 60_000.0
    serve.run(30)
    before = serve.targets["fast"]
    assert before > 1
    serve.queued["fast"] = 0.0
    serve.restart()
    serve.run(60)
    assert serve.targets["fast"] == before
    serve.run(120)
    assert serve.targets["fast"] < before


def test_the_first_decision_waits_for_all_tiers_but_not_for_ever() -> None:
    serve = Serve(config_of("fast", "frontier"))
    serve.run(LOST_S - 1, "fast")
    assert not serve.decisions
    serve.run(2, "fast")
    assert [set(each.tiers) for each in serve.decisions] == [{"fast"}]


def test_a_tier_that_serve_does_not_ask_for_any_more_is_left_out() -> None:
    serve = Serve(config_of("fast", "frontier"))
    serve.run(3)
    serve.run(LOST_S + 2, "fast")
    assert set(serve.decisions[-1].tiers) == {"fast"}


def test_a_pin_holds_until_it_expires() -> None:
    serve = Serve(config_of("fast"), lambda: (Pin("fast", 3, T + 20.0),))
    serve.run(10)
    assert serve.targets["fast"] == 3
    assert serve.decisions[-1].tiers["fast"].reason is Reason.PINNED


def test_changed_settings_count_from_the_next_decision_on() -> None:
    serve = Serve(config_of("fast"))
    serve.run(3)
    changed = AutoscalingConfig(tiers={"fast": TierScalingConfig(min=2, max=8)})
    serve.scaler.configure(changed, {"fast": 1.0})
    serve.run(2)
    assert serve.targets["fast"] == 2


def test_a_tier_that_cannot_be_read_does_not_hold_the_others() -> None:
    serve = Serve(config_of("fast", "frontier"))
    serve.queued = {"fast": 60_000.0, "frontier": 60_000.0}
    for _ in range(50):
        for tier in serve.targets:
            read = (lambda: None) if tier == "frontier" else (lambda: serve.view("fast"))
            serve.targets[tier] = serve.scaler.target(tier, serve.targets[tier], read, serve.at_s)
        serve.at_s += TICK_S
    assert serve.targets["fast"] > 1
    assert serve.targets["frontier"] == 1


def test_a_step_of_the_time_of_day_does_not_hold_the_target_or_lose_a_window() -> None:
    """NTP sets the clock of the head: back by an hour, and forth by two."""
    serve = Serve(config_of("fast", down_window_s=30.0))
    for step_s in (0.0, -3600.0, 7200.0):
        serve.clock_s = step_s
        serve.run(20)
    assert {each.tiers["fast"].reason for each in serve.decisions} & {Reason.CLOCK, Reason.NO_FRESH_DATA} == set()
    assert serve.decisions[-1].time_s == serve.decisions[-1].at_s + 7200.0
    known = serve.scaler._state.tiers["fast"].needs
    assert serve.at_s - known[0].at_s >= 30.0


def test_pins_expire_and_schedules_begin_by_the_time_of_day() -> None:
    serve = Serve(config_of("fast"), lambda: (Pin("fast", 3, T + 3600.0),))
    serve.run(3)
    assert serve.targets["fast"] == 3
    serve.clock_s = 3601.0
    serve.run(3)
    assert serve.decisions[-1].tiers["fast"].reason is not Reason.PINNED


@pytest.mark.parametrize(("pins", "expected"), [((), 1), ((Pin("fast", 0, T + 3600.0),), 0)], ids=["free", "pinned"])
def test_what_waits_at_routers_starts_a_tier_at_zero_within_an_interval(pins: tuple[Pin, ...], expected: int) -> None:
    config = AutoscalingConfig(tiers={"fast": TierScalingConfig(min=0, max=2)})
    rooms: dict[str, WaitingRoom] = {}
    serve = Serve(config)
    serve.scaler = ApplicationScaler(config, {}, serve.decisions.append, lambda: pins, lambda: rooms)
    serve.run(3)
    assert serve.targets["fast"] == 0
    rooms["fast"] = WaitingRoom(1, 50.0, 0.1)
    serve.run(1.1)
    assert serve.targets["fast"] == expected
