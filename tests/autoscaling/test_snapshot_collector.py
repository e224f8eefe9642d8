"""From what Serve knows of a tier to its snapshot, on reports made by hand."""

from __future__ import annotations

from dataclasses import replace

from cluster.autoscaling.replica_report import WindowedLatencies, to_numbers
from cluster.autoscaling.snapshot import BatchWork, ReplicaState, TierSnapshot, WaitingRoom
from cluster.autoscaling.snapshot_collector import ReplicaView, TierMemory, TierView, collect
from cluster.autoscaling.tier_load import load_of
from engine.api import ClassLoad, DueWork, EngineLoad, Priority

T = 1_767_600_000.0


def view(name: str, reported_at_s: float | None = None, arrivals: int = 0, start_s: float = 0.0) -> ReplicaView:
    if reported_at_s is None:
        return ReplicaView(name)
    classes = {Priority.STANDARD: ClassLoad(arrivals, 0, arrivals * 10.1, arrivals, arrivals * 5)}
    load = EngineLoad(running=arrivals, classes=classes, kv_capacity_tokens=1000)
    return ReplicaView(name, reported_at_s, to_numbers(load, WindowedLatencies(), start_s))


class Serve:
    """A tier in Serve, of which a collector looks at each second."""

    def __init__(self, target: int, *replicas: ReplicaView) -> None:
        self.memory, self.at_s, self.target = TierMemory(), T, target
        self.replicas = {each.replica_id: each for each in replicas}
        self.room = WaitingRoom()

    def set(self, *replicas: ReplicaView) -> None:
        self.replicas |= {each.replica_id: each for each in replicas}

    def tick(self, seconds: float = 1.0) -> TierSnapshot:
        self.at_s += seconds
        seen = TierView("fast", self.target, tuple(self.replicas.values()), self.room)
        self.memory, snapshot = collect(self.memory, seen, self.at_s, gpus=2.0)
        return snapshot


def test_batch_work_of_all_replicas_has_deadlines_by_the_collectors_clock_and_passed_ones_are_left_out() -> None:
    due = (DueWork(30.0, 100.0, 10.0), DueWork(500.0, 2000.0, 40.0))
    numbers = to_numbers(EngineLoad(batch_due=due, age_s=5.0), WindowedLatencies(), 0.0)
    serve = Serve(2, ReplicaView("a", 1.0, numbers), ReplicaView("b", 1.0, numbers))
    seen = serve.tick()
    received_s = serve.at_s - 5.0
    soon, late = BatchWork(received_s + 30.0, 100.0, 10.0), BatchWork(received_s + 500.0, 2000.0, 40.0)
    assert seen.batch_work == (soon, late, soon, late)
    assert serve.tick(26.0).batch_work == (late, late)


def test_summed_batch_work_is_due_by_its_latest_deadline_once_the_earliest_has_passed() -> None:
    due = (DueWork(10.0, 100.0, 10.0, latest_left_s=50.0),)
    serve = Serve(1, ReplicaView("a", 1.0, to_numbers(EngineLoad(batch_due=due), WindowedLatencies(), 0.0)))
    (first,) = serve.tick().batch_work
    assert first == BatchWork(serve.at_s + 10.0, 100.0, 10.0)
    assert serve.tick(11.0).batch_work == (replace(first, deadline_at_s=first.deadline_at_s + 40.0),)
    assert serve.tick(40.0).batch_work == ()


def test_batch_work_of_a_replica_of_another_release_has_its_earliest_deadline_alone() -> None:
    numbers = to_numbers(EngineLoad(batch_due=(DueWork(10.0, 100.0),)), WindowedLatencies(), 0.0)
    del numbers["due.0.latest_left_s"]
    serve = Serve(1, ReplicaView("a", 1.0, numbers))
    assert serve.tick().batch_work == (BatchWork(serve.at_s + 10.0, 100.0),)
    assert serve.tick(11.0).batch_work == ()


def states(snapshot: TierSnapshot) -> list[ReplicaState]:
    return [each.state for each in snapshot.replicas]


def test_replicas_without_a_report_have_no_sample_and_the_tier_no_counters() -> None:
    found = Serve(2, view("a"), view("b")).tick()
    assert states(found) == [ReplicaState.READY] * 2
    assert all(each.sample is None for each in found.replicas)
    assert found.counters == {}
    assert (found.target, found.gpus_per_replica, found.cold_start_s) == (2, 2.0, 0.0)


def test_a_report_counts_from_its_receipt_whatever_the_replicas_clock_says() -> None:
    serve = Serve(2, view("slow clock", 1.0), view("fast clock", T + 9e9))
    first = serve.tick()
    assert [each.sample and each.sample.observed_at_s for each in first.replicas] == [serve.at_s] * 2
    received = serve.at_s
    serve.set(view("slow clock", 2.0))
    again = serve.tick(10.0)
    assert [each.sample and each.sample.observed_at_s for each in again.replicas] == [serve.at_s, received]
    assert again.counted_at_s == serve.at_s


def test_a_report_that_cannot_be_read_leaves_the_last_one_to_become_stale() -> None:
    serve = Serve(1, view("a", 1.0, arrivals=3))
    serve.tick()
    received = serve.at_s
    serve.set(ReplicaView("a", 2.0, {"running": 1.0}))
    found = serve.tick(7.0).replicas[0]
    assert found.sample is not None
    assert (found.sample.observed_at_s, found.sample.running_requests) == (received, 3)


def test_counters_go_on_counting_when_replicas_come_and_go() -> None:
    serve = Serve(2, view("a", 1.0, arrivals=1000), view("b", 1.0, arrivals=50))
    arrivals, prompt = [], []

    def tick() -> None:
        counters = serve.tick().counters[Priority.STANDARD]
        arrivals.append(counters.arrivals)
        prompt.append(counters.prompt_tokens)

    tick()  # what was before is unknown: a restarted controller must not see a surge
    serve.set(view("a", 2.0, arrivals=1007), view("b", 2.0, arrivals=53))
    tick()
    del serve.replicas["b"]
    tick()
    serve.set(view("c", 3.0, arrivals=4))  # a new one, from its start
    tick()
    assert arrivals == [0, 10, 10, 14]
    assert prompt == sorted(prompt)


def test_counters_that_were_known_stay_when_no_replica_is_left() -> None:
    serve = Serve(1, view("a", 1.0, arrivals=5))
    serve.tick()
    serve.set(view("a", 2.0, arrivals=9))
    serve.tick()
    serve.replicas, serve.target = {}, 0
    found = serve.tick()
    assert found.counters[Priority.STANDARD].arrivals == 4
    assert found.counted_at_s == serve.at_s


def test_a_cold_start_is_measured_from_the_order_to_the_running_replica() -> None:
    serve = Serve(1, view("a", 1.0, start_s=3.0))
    assert serve.tick().cold_start_s == 3.0  # only the replica's own part of it is known
    serve.target = 3
    found = serve.tick()
    ordered = serve.at_s
    assert states(found) == [ReplicaState.READY, ReplicaState.STARTING, ReplicaState.STARTING]
    assert [each.since_s for each in found.replicas[1:]] == [ordered] * 2
    serve.tick(10.0)
    serve.set(view("b"))
    found = serve.tick()
    assert found.cold_start_s == 11.0
    assert states(found) == [ReplicaState.READY, ReplicaState.READY, ReplicaState.STARTING]
    assert found.replicas[2].since_s == ordered


def test_replicas_that_a_restarted_controller_finds_again_are_no_cold_starts() -> None:
    serve = Serve(3)
    assert states(serve.tick()) == [ReplicaState.STARTING] * 3
    serve.set(view("a"), view("b"), view("c"))
    assert serve.tick(0.2).cold_start_s == 0.0


def test_counts_of_replicas_that_a_restarted_controller_finds_again_are_no_surge() -> None:
    serve = Serve(2)
    serve.tick()  # they are recovered first
    serve.set(view("a", 1.0, arrivals=100_000), view("b", 1.0, arrivals=100_000))
    found = [serve.tick().counters[Priority.STANDARD].arrivals]
    serve.set(view("a", 2.0, arrivals=100_007))
    found.append(serve.tick().counters[Priority.STANDARD].arrivals)
    assert found == [0, 7]


def test_a_replica_that_is_updated_is_neither_a_surge_nor_a_cold_start() -> None:
    serve = Serve(1, view("a", 1.0, arrivals=100_000, start_s=30.0))
    serve.tick()
    serve.set(view("a", 2.0, arrivals=100_010, start_s=30.0))
    assert serve.tick().counters[Priority.STANDARD].arrivals == 10
    serve.replicas = {}
    assert serve.tick().counters[Priority.STANDARD].arrivals == 10
    serve.set(view("a", 3.0, arrivals=100_012, start_s=30.0))
    found = serve.tick()
    assert found.counters[Priority.STANDARD].arrivals == 12
    assert found.cold_start_s == 30.0
    assert states(found) == [ReplicaState.READY]


def test_a_replica_that_is_gone_for_good_is_forgotten_but_for_its_counts() -> None:
    serve = Serve(2, view("a", 1.0, arrivals=5), view("b", 1.0, arrivals=5))
    serve.tick()
    serve.set(view("a", 2.0, arrivals=9))
    serve.tick()
    del serve.replicas["a"]
    assert [serve.tick(40.0).counters[Priority.STANDARD].arrivals for _ in range(4)] == [4] * 4
    assert serve.memory.absent == {}


def test_an_order_that_is_withdrawn_is_not_awaited() -> None:
    serve = Serve(1, view("a"))
    serve.tick()
    serve.target = 3
    serve.tick()
    serve.target = 1
    assert states(serve.tick()) == [ReplicaState.READY]
    assert serve.memory.orders == ()


def test_what_waits_at_routers_counts_until_a_replica_runs() -> None:
    serve = Serve(0)
    serve.tick()
    serve.room = WaitingRoom(2, 500.0, 3.0)
    assert serve.tick().waiting_room == serve.room
    serve.set(view("a"))
    assert serve.tick().waiting_room.requests == 0


def test_the_memory_is_not_changed_by_a_call() -> None:
    memory = TierMemory()
    seen = TierView("fast", 1, (view("a", 1.0, arrivals=2),))
    first = collect(memory, seen, T)
    assert collect(memory, seen, T) == first
    assert memory == TierMemory()
    assert replace(first[0]) == first[0]


def aged(name: str, reported_at_s: float, age_s: float) -> ReplicaView:
    numbers = to_numbers(EngineLoad(running=3, age_s=age_s), WindowedLatencies(), 0.0)
    return ReplicaView(name, reported_at_s, numbers)


def test_numbers_that_were_old_when_they_were_sent_are_old_when_they_come() -> None:
    serve = Serve(1, aged("a", 1.0, 0.0))
    assert load_of(serve.tick(), serve.at_s, stale_s=5.0, stuck_s=60.0, new_s=30.0).fresh == 1
    serve.set(aged("a", 2.0, 8.0))  # its engine hangs in a step, and it reports as ever
    found = serve.tick()
    assert found.replicas[0].sample is not None
    assert found.replicas[0].sample.observed_at_s == serve.at_s - 8.0
    assert load_of(found, serve.at_s, stale_s=5.0, stuck_s=60.0, new_s=30.0).fresh == 0


def modelled(name: str, reported_at_s: float, model: str, start_s: float) -> ReplicaView:
    return ReplicaView(name, reported_at_s, to_numbers(EngineLoad(), WindowedLatencies(), start_s, model))


def test_cold_starts_of_another_model_are_forgotten() -> None:
    serve = Serve(1, modelled("a", 1.0, "aa", 3.0))
    serve.tick()
    serve.target = 2
    serve.tick()
    serve.tick(40.0)
    serve.set(modelled("b", 1.0, "aa", 30.0))
    assert serve.tick().cold_start_s == 41.0
    serve.set(modelled("a", 2.0, "bb", 5.0), modelled("b", 2.0, "bb", 5.0))  # updated in place
    assert serve.tick().cold_start_s == 5.0


def late_view(name: str, reported_at_s: float, arrivals: int, late: int) -> ReplicaView:
    load = EngineLoad(classes={Priority.STANDARD: ClassLoad(arrivals, late=late)})
    return ReplicaView(name, reported_at_s, to_numbers(load, WindowedLatencies(), 0.0))


def test_late_requests_of_replicas_that_have_gone_stay_counted() -> None:
    serve = Serve(2, late_view("a", 1.0, 100, 4), late_view("b", 1.0, 50, 1))
    before = serve.tick().counters[Priority.STANDARD].late
    serve.set(late_view("a", 2.0, 130, 9))
    assert serve.tick().counters[Priority.STANDARD].late == before + 5
    del serve.replicas["a"]
    assert serve.tick().counters[Priority.STANDARD].late == before + 5
