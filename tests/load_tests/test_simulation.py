"""The simulator against closed forms, a simulation token by token, and the laws that any queue keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from load_tests.simulation.fluid import simulate_fluid
from load_tests.simulation.measures import measure, replica_hours
from load_tests.simulation.observation import Observation, Policy
from load_tests.simulation.policies.fixed import FixedPolicy
from load_tests.simulation.profile import PROFILES, ReplicaProfile
from load_tests.simulation.replica import Replica
from load_tests.simulation.simulation import DEFAULT_SLO, Outcome, Settings, Simulation
from load_tests.simulation.slo import Slo
from load_tests.simulation.synthetic import synthetic
from load_tests.simulation.tier import Tier
from load_tests.simulation.trace import Trace, build

PROFILE = ReplicaProfile("test", "none", 2, 10_000, 0.010, 50e-6, 50e-9, 512, 100_000, 64)


def run(trace: Trace, replicas: int = 1, policy: Policy | None = None, **settings: float) -> Outcome:
    chosen = replace(Settings(PROFILE, replicas_start=replicas), **settings)  # type: ignore[arg-type]
    return Simulation(trace, policy or FixedPolicy([(0.0, replicas)]), chosen).run()


def poisson(rate: float, count: int, prompt: int, output: int, seed: int = 0) -> Trace:
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    return build("poisson", times.tolist(), [prompt] * count, [output] * count)


# The lower the load, the fewer requests it takes until the mean is known: busy periods are shorter.
@pytest.mark.parametrize(("load", "count"), [(0.3, 8_000), (0.6, 16_000), (0.8, 40_000)])
def test_waits_of_equal_prompts_are_those_of_an_m_d_1_queue(load: float, count: int) -> None:
    service = 500 / PROFILE.prefill_tokens_s
    trace = poisson(load / service, count, prompt=500, output=1)

    outcome = run(trace, max_outstanding=10**6)

    waited = float(np.mean(outcome.first - trace.arrival)) - service
    assert waited == pytest.approx(load * service / (2 * (1 - load)), rel=0.08)  # Pollaczek and Khinchine


@pytest.mark.parametrize(("sequences", "output"), [(1, 2), (1, 1_000), (32, 200), (64, 400)])
def test_a_batch_takes_the_time_of_its_steps(sequences: int, output: int) -> None:
    profile = replace(PROFILE, prefill_tokens_s=1e12)  # prefill takes no time beside
    replica = Replica(profile, 0, 0.0)
    for request in range(sequences):
        replica.submit(0.0, request, 100, output, 0.0)
    while replica.outstanding:
        replica.fire()

    steps = output - 1
    first = profile.decode_step_s(sequences, 101 * sequences)
    assert replica.time == pytest.approx(steps * first + profile.kv_s * sequences * steps**2 / 2, rel=1e-6)
    assert replica.kv_reserved == replica.prompt_tokens == 0
    assert replica.kv_resident == replica.backlog_s == 0.0


def token_by_token(profile: ReplicaProfile, requests: list[tuple[float, int, int]]) -> NDArray[np.float64]:
    """Instants of first and last tokens [requests, 2] of one replica that runs each step, prompts of a chunk."""
    waiting = list(range(len(requests)))
    prefilling: list[list[int]] = []  # request and prompt tokens left
    decoding: dict[int, int] = {}  # tokens that each request has
    result = np.zeros((len(requests), 2))
    now = 0.0
    while waiting or prefilling or decoding:
        if not prefilling and not decoding:
            now = max(now, requests[waiting[0]][0])
        while waiting and requests[waiting[0]][0] <= now:
            request = waiting.pop(0)
            prefilling.append([request, requests[request][1]])
        left = budget = profile.chunk_tokens
        done = []
        while prefilling and left:
            took = min(prefilling[0][1], left)
            left -= took
            prefilling[0][1] -= took
            if not prefilling[0][1]:
                done.append(prefilling.pop(0)[0])
        base = (budget - left) / profile.prefill_tokens_s
        kv = sum(requests[request][1] + had for request, had in decoding.items())
        now += (base or profile.step_s) + profile.sequence_s * len(decoding) + profile.kv_s * kv
        for request in list(decoding):
            decoding[request] += 1
            if decoding[request] == requests[request][2]:
                del decoding[request]
                result[request, 1] = now
        for request in done:
            result[request] = now
            if requests[request][2] > 1:
                decoding[request] = 1
    return result


@pytest.mark.parametrize("seed", range(4))
def test_requests_come_when_a_simulation_token_by_token_has_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.exponential(0.12, 120)).tolist()
    prompts, outputs = random.integers(20, 500, 120).tolist(), random.integers(1, 150, 120).tolist()
    trace = build("random", times, prompts, outputs)

    outcome = run(trace)

    exact = token_by_token(PROFILE, list(zip(trace.arrival.tolist(), prompts, outputs, strict=True)))
    ttft, exact_ttft = outcome.first - trace.arrival, exact[:, 0] - trace.arrival
    whole, exact_whole = outcome.end - trace.arrival, exact[:, 1] - trace.arrival
    assert float(ttft.mean()) == pytest.approx(float(exact_ttft.mean()), abs=0.02)  # half a step for its beginning
    assert float(whole.mean()) == pytest.approx(float(exact_whole.mean()), rel=0.04)
    assert float(np.abs(whole - exact_whole).mean()) < 0.07 * float(exact_whole.mean())


@pytest.mark.parametrize("name", ["70b-h100x2", "8b-h200"])
def test_a_replica_keeps_its_itl_up_to_its_capacity_and_not_beyond(name: str) -> None:
    profile, prompt, output, itl = PROFILES[name], 800, 120, 0.04
    capacity = profile.capacity_rps(prompt, output, itl)
    found = []
    for load in (0.85, 1.1):
        trace = poisson(load * capacity, int(90 * capacity), prompt, output)
        outcome = run(trace, profile=profile, max_outstanding=10**6)  # type: ignore[arg-type]
        late = trace.arrival > 0.6 * trace.duration
        found.append(float(((outcome.end - trace.arrival) / output)[late].mean()))

    assert found[0] < itl < found[1]


@pytest.mark.parametrize(
    ("name", "prompt", "output", "tokens_s"),
    [
        ("8b-h100", 1000, 1000, 15_220),
        ("8b-h100", 2048, 2048, 9_305),
        ("8b-h100", 2048, 128, 3_450),
        ("8b-h200", 1000, 1000, 17_744),
        ("8b-h200", 2048, 128, 3_538),
        ("70b-h100x2", 1000, 1000, 4_205),
        ("70b-h100x2", 2048, 2048, 3_082),
        ("70b-h100x2", 2048, 128, 762),
        ("70b-h200", 1000, 1000, 2_909),
        ("70b-h200", 2048, 128, 442),
    ],
)
def test_a_full_replica_has_the_published_throughput(name: str, prompt: int, output: int, tokens_s: float) -> None:
    # TensorRT-LLM 1.0's performance overview: output tokens/s with all requests there at once, 8,192 tokens in a step.
    profile = replace(PROFILES[name], chunk_tokens=8192)

    assert output * profile.capacity_rps(prompt, output, itl_s=10.0) == pytest.approx(tokens_s, rel=0.12)


def test_prompts_of_one_chunk_pass_long_ones_of_which_two_are_prefilled_at_once() -> None:
    trace = build("mixed", [0.0, 0.001, 0.002, 0.003], [20_000, 20_000, 20_000, 100], [1, 1, 1, 1])

    first = run(trace).first

    assert first[3] < 0.05
    assert first[0] == pytest.approx(4.0, abs=0.1)
    assert first[1] == pytest.approx(4.0, abs=0.1)
    assert first[2] == pytest.approx(6.0, abs=0.1)


def test_the_first_token_comes_with_the_prefill_and_not_a_step_later() -> None:
    outcome = run(build("one", [0.0], [400], [11]))

    assert outcome.first[0] == pytest.approx(400 / PROFILE.prefill_tokens_s)
    assert outcome.end[0] - outcome.first[0] == pytest.approx(10 * PROFILE.decode_step_s(1, 406), rel=1e-3)


def test_a_request_that_can_never_fit_is_refused_and_blocks_no_other() -> None:
    trace = build("large", [0.0, 0.1, 0.2], [90_000, 200_000, 100], [100, 10, 10])

    outcome = run(trace)

    assert np.isfinite(outcome.end).tolist() == [True, False, True]
    assert measure(outcome).refused == 1


def test_what_does_not_fit_the_cache_waits_until_it_does() -> None:
    outcome = run(build("full", [0.0, 0.0], [60_000, 60_000], [200, 2]))

    assert outcome.first[1] >= outcome.end[0]


class Restless:
    """Changes its mind all the time."""

    name, interval_s = "restless", 3.0

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def decide(self, seen: Observation) -> int:
        return int(self._random.integers(0, 9))


@pytest.mark.parametrize("seed", range(3))
def test_every_request_is_served_or_counted_whatever_replicas_do(seed: int) -> None:
    trace = synthetic("steady", rate=20, duration=120, seed=seed)
    policy = Restless(seed)

    outcome = run(
        trace, 2, policy, failures_per_hour=60, cold_start_s=5, stuck_share=0.2, max_outstanding=40, seed=seed
    )

    found = measure(outcome)
    assert found.served + found.refused + found.missed == found.requests == len(trace)
    assert found.missed == 0
    assert found.failures > 0
    served = np.isfinite(outcome.end)
    assert (outcome.first[served] > trace.arrival[served]).all()
    assert (outcome.end[served] >= outcome.first[served]).all()
    assert all(0 <= ready <= allocated for _, allocated, ready in outcome.series)


def test_a_run_depends_on_its_seed_alone() -> None:
    trace = synthetic("flash", rate=10, duration=60, seed=1)
    runs = [run(trace, 2, Restless(3), failures_per_hour=100, cold_start_s=4, seed=seed) for seed in (5, 5, 6)]

    assert np.array_equal(runs[0].end, runs[1].end, equal_nan=True)
    assert runs[0].series == runs[1].series
    assert not np.array_equal(runs[0].end, runs[2].end, equal_nan=True)


def test_requests_of_a_crashed_replica_go_on_where_they_were() -> None:
    trace = build("crash", [0.0], [100], [1_000])
    alone = run(trace)

    outcome = run(trace, 1, failures_per_hour=3600, cold_start_s=0.5)

    assert outcome.failures > 0
    assert outcome.first[0] == pytest.approx(alone.first[0])
    # What was emitted is prefilled again, not generated again.
    assert alone.end[0] < outcome.end[0] < alone.end[0] + outcome.failures * 0.7


def test_with_no_replica_requests_wait_for_the_cold_start() -> None:
    trace = build("zero", [0.0, 1.0], [100, 100], [2, 2])
    settings = Settings(PROFILE, replicas_min=0, replicas_start=0, cold_start_s=20, cold_start_spread=0)

    outcome = Simulation(trace, FixedPolicy([(0.0, 1)]), settings).run()

    assert (outcome.first > 20).all()
    assert (outcome.first < 20.1).all()


def test_a_replica_that_ends_finishes_what_it_has_and_gives_back_what_waits() -> None:
    trace = build("drain", [0.0] * 80 + [4.0], [200] * 81, [300] * 81)
    policy = FixedPolicy([(0.0, 2), (2.0, 1)], interval_s=1.0)

    outcome = run(trace, 2, policy)

    assert np.isfinite(outcome.end).all()
    gone = [at for at, allocated, _ in outcome.series if allocated == 1]
    assert gone
    assert gone[0] > 2.5  # not before its requests have ended


def test_gpu_hours_count_replicas_from_their_order_to_their_end() -> None:
    trace = build("hours", [0.0, 999.0], [10, 10], [2, 2])
    policy = FixedPolicy([(0.0, 1), (100.0, 3), (600.0, 1)], interval_s=5.0)

    found = measure(run(trace, 1, policy, cold_start_s=60))

    assert found.gpu_hours == pytest.approx(2 * (1000 + 2 * 500) / 3600)
    assert found.changes == 2
    assert found.peak_replicas == 3


def test_replica_hours_end_with_the_trace() -> None:
    assert replica_hours([(0.0, 2, 2), (1800.0, 4, 2), (9000.0, 1, 1)], 3600) == pytest.approx(3.0)


def test_classes_are_measured_apart_and_interactive_requests_decide() -> None:
    trace = replace(
        build("classes", [0.0, 0.0, 50.0], [100, 20_000, 100], [5, 5, 5]), priority=np.array([0, 1, 0], dtype=np.int8)
    )

    found = measure(run(trace, slo=Slo(ttft_s=1.0, itl_s=0.1, ttft_s_per_token=0)))  # type: ignore[arg-type]

    assert found.attainment == found.classes["interactive"].attainment == 1.0
    assert found.classes["batch"].attainment == 0.0
    assert found.classes["batch"].ttft_p50_s == pytest.approx(2.0, abs=0.1)


def test_littles_law_holds() -> None:
    trace = poisson(4.0, 1_200, prompt=300, output=60)
    seen: list[int] = []

    class Watching(FixedPolicy):
        def decide(self, observation: Observation) -> int:
            if observation.at < trace.duration:
                seen.append(observation.ongoing)
            return super().decide(observation)

    outcome = run(trace, 2, Watching([(0.0, 2)], interval_s=0.5))

    rate = len(trace) / trace.duration
    assert np.mean(seen) == pytest.approx(rate * float((outcome.end - trace.arrival).mean()), rel=0.05)


@pytest.mark.parametrize("shape", ["steady", "square"])
def test_the_fluid_has_the_latencies_and_loads_of_many_replicas(shape: str) -> None:
    profile = PROFILES["70b-h100x2"]
    trace = synthetic(shape, rate=60, duration=120, seed=2)
    settings = Settings(profile)
    count = Tier.of(trace, settings).start_replicas(trace, 1.1)
    settings = replace(settings, replicas_start=count)
    policy = FixedPolicy([(0.0, count)])

    exact = measure(Simulation(trace, policy, settings).run())
    fluid = simulate_fluid(trace, 1.0, policy, settings).measures

    assert fluid.gpu_hours == pytest.approx(exact.gpu_hours)
    assert fluid.attainment == pytest.approx(exact.attainment, abs=0.01)
    one, other = fluid.classes["interactive"], exact.classes["interactive"]
    assert one.itl_p50_s == pytest.approx(other.itl_p50_s, rel=0.15)


def test_the_fluid_counts_each_request_by_its_weight() -> None:
    trace = synthetic("ramp", rate=5, duration=120)
    settings = Settings(PROFILE, replicas_start=4_000, replicas_max=10_000)

    found = simulate_fluid(trace, 2_000, FixedPolicy([(0.0, 10_000)]), settings).measures

    assert found.requests == 2_000 * len(trace)
    assert found.peak_replicas == 10_000


def test_with_admission_an_overload_costs_only_those_that_cannot_be_served() -> None:
    capacity = PROFILE.capacity_rps(500, 50, DEFAULT_SLO.itl_s)
    trace = poisson(2 * 2 * capacity, 6_000, prompt=500, output=50)

    queued = measure(run(trace, 2, max_outstanding=10**6))
    admitted = measure(run(trace, 2, max_outstanding=10**6, admission=True))

    assert queued.attainment < 0.25, "each waits behind those that are late already"
    assert admitted.attainment > 0.4
    assert admitted.served + admitted.refused == len(trace)
    assert admitted.served == pytest.approx(admitted.attainment * len(trace), rel=0.05), (
        "few are late, the others refused"
    )


def test_as_many_long_prompts_at_once_as_there_are_idle_replicas_are_admitted() -> None:
    replicas = 12
    times = [20.0 * burst + number / 1_000 for burst in range(10) for number in range(replicas)]
    trace = build("bursts", times, [60_000] * len(times), [20] * len(times))  # six seconds each

    found = measure(run(trace, replicas, admission=True))

    assert (found.refused, found.attainment) == (0, 1.0)


def test_admission_refuses_no_long_prompt_on_replicas_that_have_time_for_it() -> None:
    random = np.random.default_rng(3)
    count = 1_500
    prompts = np.where(random.random(count) < 0.1, 20_000, 300)
    times = np.cumsum(random.exponential(1 / 16, count))
    trace = build("mixed", times.tolist(), prompts.tolist(), [50] * count)  # 36,000 tokens/s, of 240,000

    assert measure(run(trace, 24, admission=True)).refused <= 0.01 * count


def run_on(profile: ReplicaProfile, trace: Trace) -> Outcome:
    return Simulation(trace, FixedPolicy([(0.0, 1)]), Settings(profile)).run()


def test_short_prompts_of_a_step_have_their_first_tokens_at_its_end() -> None:
    trace = build("four", [0.0, 0.001, 0.002, 0.003], [300, 400, 400, 400], [1] * 4)

    together, apart = run_on(replace(PROFILE, short_tokens=1000), trace), run_on(PROFILE, trace)

    # The second step has room for two.
    assert (together.first * PROFILE.prefill_tokens_s).tolist() == pytest.approx([300, 1100, 1100, 1500])
    assert (apart.first * PROFILE.prefill_tokens_s).tolist() == pytest.approx([300, 700, 1100, 1500])


def test_a_long_prompt_leaves_decodes_the_steps_that_the_engine_leaves_them() -> None:
    trace = build("beside", [0.0, 1.0], [100, 8_000], [400, 1])

    whole, limited = run_on(PROFILE, trace), run_on(replace(PROFILE, decode_slowdown=1.6), trace)

    # 0.8 s of prefill are 16 whole chunks, or 50 steps of 1.6 times the 10 ms of the weights.
    assert whole.end[0] - limited.end[0] == pytest.approx((50 - 16) * 0.010, abs=0.02)
    assert 1.0 < (limited.first[1] - 1.0) / (whole.first[1] - 1.0) < 1.05
