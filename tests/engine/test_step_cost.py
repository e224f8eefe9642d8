"""The cost of a step, learnt from steps."""

from __future__ import annotations

import random
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scheduler.step_plan import Load
from engine.step_cost import StepCost, StepCostFit


def test_nothing_is_known_before_the_first_step() -> None:
    assert StepCostFit().solve() == StepCost()


def test_the_parts_of_a_step_are_told_apart() -> None:
    fit, draw = StepCostFit(), random.Random(1)
    for at in range(200):
        prompt, decodes = draw.choice((0, 0, 20, 300, 512)), draw.randrange(1, 32)
        fit.observe(Load(decodes=decodes, short=prompt), 0.01 + 2e-4 * prompt + 5e-4 * decodes, 0.05 * at)
    cost = fit.solve()
    assert cost.step_s == pytest.approx(0.01, rel=0.01)
    assert cost.prompt_token_s == pytest.approx(2e-4, rel=0.01)
    assert cost.sequence_s == pytest.approx(5e-4, rel=0.01)


def beside_weights(draw: random.Random, noise: float = 0.03) -> tuple[Load, float]:
    """Returns a step, and its seconds where 25 ms for the weights hide some forty tokens."""
    prompt, decodes = draw.choice((0, 0, 0, draw.randrange(1, 120), draw.randrange(1, 500))), draw.randrange(1, 8)
    seconds = max(0.025, 0.6e-3 * (prompt + decodes)) * draw.uniform(1 - noise, 1 + noise)
    return Load(decodes=decodes, short=prompt), seconds


def beside_weights_fit(noise: float = 0.03) -> StepCostFit:
    fit, draw = StepCostFit(), random.Random(2)
    for at in range(600):
        fit.observe(*beside_weights(draw, noise), 0.05 * at)
    fit.solve()
    return fit


def test_tokens_that_are_computed_while_the_weights_are_read_are_free() -> None:
    cost = beside_weights_fit().cost
    assert cost.seconds(20, 4) == pytest.approx(0.025, rel=0.1)
    assert cost.seconds(40, 4) == pytest.approx(0.0264, rel=0.12)
    assert cost.seconds(100, 4) == pytest.approx(0.0624, rel=0.1)
    assert cost.seconds(480, 4) == pytest.approx(0.29, rel=0.1)
    assert 30 <= cost.free_prompt_tokens <= 48


def test_tokens_stay_free_where_the_steps_that_proved_it_count_little() -> None:
    warm, idle = beside_weights_fit(noise=0.3), beside_weights_fit(noise=0.3)
    before = warm.cost
    assert before.free_prompt_tokens > 0

    warm.discount()
    assert warm.solve() == pytest.approx(before)

    idle.observe(Load(decodes=4), 0.025, 1e5)  # after a night without requests
    after = idle.solve()
    assert after.free_prompt_tokens > 0
    assert after.seconds(200, 4) == pytest.approx(before.seconds(200, 4), rel=0.1)


def test_a_replica_with_few_steps_does_not_go_to_and_fro_between_fits() -> None:
    fit, draw = beside_weights_fit(noise=0.3), random.Random(1)
    free = []
    for at in range(3_000):  # one in a second: some forty of them count
        fit.observe(*beside_weights(draw, noise=0.3), 30.0 + at)
        if at % 5 == 0:
            free.append(fit.solve().free_prompt_tokens)
    assert min(free) > 0


def test_costs_are_followed_where_no_token_is_free_any_more() -> None:
    fit, draw = beside_weights_fit(), random.Random(3)
    for at in range(3_000):
        prompt, decodes = draw.choice((0, draw.randrange(1, 500))), draw.randrange(1, 8)
        seconds = (0.02 + 0.6e-3 * prompt + 1e-3 * decodes) * draw.uniform(0.9, 1.1)
        fit.observe(Load(decodes=decodes, short=prompt), seconds, 30.0 + 0.1 * at)
        if at % 5 == 0:
            fit.solve()
    for prompt in (0, 10, 40, 100, 500):
        assert fit.solve().seconds(prompt, 4) == pytest.approx(0.024 + 0.6e-3 * prompt, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_no_token_is_free_where_each_costs_the_same(seed: int) -> None:
    fit, draw = StepCostFit(), random.Random(seed)
    for at in range(600):
        prompt, decodes = draw.choice((0, draw.randrange(1, 500))), draw.randrange(1, 8)
        seconds = (0.002 + 0.6e-3 * prompt + 1e-3 * decodes) * draw.uniform(0.8, 1.3)
        fit.observe(Load(decodes=decodes, short=prompt), seconds, 0.05 * at)
    assert fit.solve().free_prompt_tokens == 0


def test_prompts_of_two_lengths_alone_leave_no_token_free() -> None:
    fit, draw = StepCostFit(), random.Random(3)
    for at in range(400):
        prompt = draw.choice((10, 100))
        fit.observe(Load(short=prompt), (0.02 + 4e-4 * prompt) * draw.uniform(0.98, 1.02), 0.05 * at)
    cost = fit.solve()
    assert cost.seconds(200, 0) == pytest.approx(0.1, rel=0.05)


def test_steps_that_have_long_been_forgotten_count_nothing() -> None:
    fit = StepCostFit()
    for at in range(3_000):  # hours, after each of which the sums would be scaled down
        fit.observe(Load(decodes=1, short=50 * (at % 3)), 0.01 + 1e-3 * 50 * (at % 3), 3_600.0 * at)
    for at in range(200):
        fit.observe(Load(decodes=1, short=50 * (at % 3)), 0.02 + 2e-3 * 50 * (at % 3), 1.08e7 + at)
    assert fit.solve().seconds(100, 1) == pytest.approx(0.22, rel=0.05)


def test_prompts_of_one_length_alone_give_the_cost_of_their_tokens() -> None:
    fit = StepCostFit()
    for at in range(20):
        fit.observe(Load(short=100), 0.1, float(at))
    cost = fit.solve()
    assert cost.step_s + 100 * cost.prompt_token_s == pytest.approx(0.1)


def test_a_fit_that_is_discounted_stays_until_the_next_steps() -> None:
    fit = StepCostFit()
    for at in range(50):
        fit.observe(Load(short=100 + at), 0.4, 0.01 * at)
    before = fit.solve()

    fit.discount()

    assert fit.solve() == pytest.approx(before)
    for at in range(4):
        fit.observe(Load(short=100 + at), 0.1, 1 + 0.01 * at)
    cost = fit.solve()
    assert cost.step_s + 100 * cost.prompt_token_s < 0.15


def test_one_step_that_waited_for_a_compiler_counts_little() -> None:
    fit = StepCostFit()
    for at in range(50):
        fit.observe(Load(decodes=4, short=10 * (at % 5)), 0.01 + 1e-3 * 10 * (at % 5), 0.05 * at)
    before = fit.solve()
    fit.observe(Load(decodes=4, short=40), 30.0, 3.0)
    after = fit.solve()
    assert after.step_s + 40 * after.prompt_token_s < 1.3 * (before.step_s + 40 * before.prompt_token_s)


def test_a_machine_that_has_become_slower_is_followed() -> None:
    fit = StepCostFit()
    for at in range(600):
        slower = 1 if at < 200 else 10
        fit.observe(Load(decodes=1 + at % 4, short=50 * (at % 3)), slower * (0.01 + 1e-3 * 50 * (at % 3)), 1.0 * at)
        if at % 5 == 0:
            fit.solve()
    assert fit.cost.prompt_token_s == pytest.approx(1e-2, rel=0.1)


def test_decodes_after_prompts_alone_are_learnt() -> None:
    fit = StepCostFit()
    for at in range(20):
        fit.observe(Load(short=100), 0.1, float(at))
        fit.solve()
    for at in range(20, 200):
        fit.observe(Load(decodes=2), 0.02, float(at))
        fit.solve()
    assert fit.cost.step_s + 2 * fit.cost.sequence_s == pytest.approx(0.02, rel=0.1)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 512),
            st.integers(0, 64),
            st.floats(0, 10) | st.floats(0, 1e-300),
            st.floats(0, 1e4),
            st.booleans(),
        ),
        max_size=50,
    )
)
def test_no_cost_is_negative_and_no_step_is_an_error(steps: list[tuple[int, int, float, float, bool]]) -> None:
    fit = StepCostFit()
    for prompt, decodes, seconds, now, looks in steps:
        fit.observe(Load(decodes=decodes, long=prompt), seconds, now)
        if looks:
            fit.solve()
    cost = fit.solve()
    assert min(cost) >= 0
    assert all(map(isfinite, cost))
