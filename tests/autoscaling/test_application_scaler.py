"""The scaler of an application, which Serve asks for one tier at a time, many times a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from cluster.autoscaling.application_scaler import LOST_S, ApplicationScaler
from cluster.autoscaling.config import AutoscalingConfig, FastLoopConfig, TierScalingConfig
from cluster.autoscaling.decision import Decisions, Reason
from cluster.autoscaling.replica_report import WindowedLatencies, to_numbers
from cluster.autoscaling.snapshot import Pin, WaitingRoom
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView
from engine.api import ClassLoad, EngineLoad, Priority

T = 1_767_600_000.0
TICK_S = 0.1


class Serve:
    """Serve's control loop: asks for each tier's target every 100 ms, and carries it out at once."""

    def __init__(self, config: AutoscalingConfig, pins: Callable[[], tuple[Pin, ...]] = tuple) -> None:
        self.config = config
        self.decisions: list[Decisions] = []
        self.pins = pins
        self.at_s = T
        self.clock_s = 0.0  # by which the time of day is ahead of the scaler's clock
        self.targets = {name: tier.min for name, tier in config.tiers.items()}
        self.queued = dict.fromkeys(config.tiers, 0.0)  # prompt tokens of each replica
        self.reads = 0
        self.restart()

    def restart(self) -> None:
        """A new controller, which remembers nothing but the targets."""
        gpus = dict.fromkeys(self.config.tiers, 1.0)
        self.scaler = ApplicationScaler(self.config, gpus, self.decisions.append, self.pins)

    def run(self, seconds: float, *tiers: str) -> None:
        for _ in range(round(seconds / TICK_S)):
            for tier in tiers or self.config.tiers:
                for _ in range(2):  # Serve may ask twice (ray 59220)
                    read = partial(self.view, tier)
                    time_s = self.at_s + self.clock_s
                    self.targets[tier] = self.scaler.target(tier, self.targets[tier], read, self.at_s, time_s)
            self.at_s += TICK_S

    def view(self, tier: str) -> TierView:
        self.reads += 1
        count, queued = self.targets[tier], self.queued[tier]
        arrivals = int(self.at_s - T) * 20 if queued else 0
        classes = {Priority.STANDARD: ClassLoad(arrivals, 0, arrivals * 500.0, arrivals, arrivals * 100)}
        load = EngineLoad(
            running=4 if queued else 0,
            waiting=int(queued / 500),
            queued_prompt_tokens=queued,
            kv_capacity_tokens=200_000,
            prefill_tokens_per_s=10_000,
            decode_step_s=0.02,
            decode_batch=4,
            classes=classes,
        )
        numbers = to_numbers(load, WindowedLatencies(), 1.0)
        return TierView(tier, count, tuple(ReplicaView(f"{tier}{n}", self.at_s, numbers) for n in range(count)))


def config_of(*tiers: str, gpus: float | None = None, down_window_s: float = 120.0) -> AutoscalingConfig:
    pool = None if gpus is None else "h100"
    return AutoscalingConfig(
        tiers={name: TierScalingConfig(min=1, max=8, pool=pool) for name in tiers},
        pools={} if gpus is None else {"h100": gpus},
        fast=FastLoopConfig(down_window_s=down_window_s, down_period_s=5.0),
    )


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
