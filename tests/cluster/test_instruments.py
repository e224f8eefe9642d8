"""A counter is a gauge of its sum to Ray, which grows and has the name of a counter."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from cluster.telemetry.instruments import RayInstruments
from tests.cluster.ray_metrics import RecordedMetrics, record


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


def test_a_counter_sets_a_gauge_to_its_sum_by_series(recorded: RecordedMetrics) -> None:
    counter = RayInstruments("app").counter("manta_things", "Things.", ("tenant", "tier"))
    for amount in (1, 2.5):
        counter.inc(amount, {"tenant": "a", "tier": "fast"})
    counter.inc(4, {"tier": "fast", "tenant": "a"})
    counter.inc(7, {"tenant": "b", "tier": "fast"})
    assert recorded.value("ray_manta_things_total", tenant="a", tier="fast") == 7.5
    assert recorded.value("ray_manta_things_total", tenant="b", tier="fast") == 7
    assert recorded.applications == {"ray_manta_things_total": "app"}


def test_a_counter_without_labels(recorded: RecordedMetrics) -> None:
    counter = RayInstruments().counter("manta_things", "Things.")
    for _ in range(3):
        counter.inc(1)
    assert recorded.value("ray_manta_things_total") == 3


def test_a_counter_that_is_made_again_goes_on_with_its_sum(recorded: RecordedMetrics) -> None:
    """Two sums of one name would replace each other in Ray's gauge, and to Prometheus each fall is a reset."""
    instruments = RayInstruments()
    for expected in (1, 2):
        instruments.counter("manta_things", "Things.").inc(1)
        assert recorded.value("ray_manta_things_total") == expected


@pytest.mark.parametrize("value", [0, -1.5])
def test_a_counter_does_not_fall(recorded: RecordedMetrics, value: float) -> None:
    counter = RayInstruments().counter("manta_things", "Things.")
    with pytest.raises(ValueError, match="more than 0"):
        counter.inc(value)
    assert recorded.values == {}


def test_threads_lose_no_count(recorded: RecordedMetrics) -> None:
    counter = RayInstruments().counter("manta_things", "Things.")

    def count() -> None:
        for _ in range(2000):
            counter.inc(1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert recorded.value("ray_manta_things_total") == 8000


def test_sums_are_set_again_since_ray_forgets_a_gauge(recorded: RecordedMetrics) -> None:
    counter = RayInstruments(refresh_s=0.05).counter("manta_things", "Things.", ("tier",))
    counter.inc(3, {"tier": "fast"})
    for _ in range(2):
        recorded.values.clear()  # as Ray does with each report
        deadline = time.monotonic() + 10
        while not recorded.values and time.monotonic() < deadline:
            time.sleep(0.01)
        assert recorded.value("ray_manta_things_total", tier="fast") == 3


def test_the_thread_ends_with_its_instruments(recorded: RecordedMetrics) -> None:
    def threads() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if each.name == "manta-sums"}

    before = threads()
    instruments = RayInstruments(refresh_s=0.05)
    counter = instruments.counter("manta_things", "Things.")
    assert threads() <= before, "nothing is counted yet"
    counter.inc(1)
    assert len(threads() - before) == 1
    del counter, instruments
    deadline = time.monotonic() + 10
    while threads() - before and time.monotonic() < deadline:
        gc.collect()  # again, if the thread was at work
        time.sleep(0.01)
    assert threads() - before == set()


def test_what_a_process_counts_before_its_end_is_a_counter_of_ray(recorded: RecordedMetrics) -> None:
    """Ray's agent exports it for as long as the node runs, and a gauge for some seconds."""
    counter = RayInstruments("app").lasting_counter("manta_ends", "Ends.", ("tier",))
    for _ in range(2):
        counter.inc(1, {"tier": "fast"})
    assert recorded.value("ray_manta_ends_total", tier="fast") == 2
    assert recorded.adds == {"ray_manta_ends_total": 2}
