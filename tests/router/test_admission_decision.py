"""Which requests a tier takes, which it refuses and why, and where they spill."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Priority
from router.admission.admission_decision import Admit, Reason, Refuse, RequestFacts, TierView, ceiling, check, decide
from router.admission.spill import narrowed, spill_targets
from router.config.admission import AdmissionConfig, ClassAdmission, TierAdmission
from router.config.tenants import Spill

CONFIG = AdmissionConfig(
    interactive=ClassAdmission(ttft_s=1, max_requests=10, max_tokens=10_000),
    standard=ClassAdmission(ttft_s=5, max_requests=10, max_tokens=10_000),
    batch=ClassAdmission(max_requests=10, max_tokens=10_000),
)
ORDER = ("fast", "balanced", "frontier")
INTERACTIVE, STANDARD, BATCH = Priority


def facts(priority: Priority = STANDARD, deadline_s: float | None = None, spill: Spill = "none") -> RequestFacts:
    return RequestFacts("acme", priority, 1, 100, 50, deadline_s, spill)


def outcome(asked: RequestFacts, *views: TierView) -> Admit | Refuse:
    by_name = {view.name: view for view in views}
    return decide(asked, views[0].name, by_name, [name for name in ORDER if name in by_name], CONFIG)


def reason(asked: RequestFacts, view: TierView) -> Reason | None:
    decision = outcome(asked, view)
    return decision.reason if isinstance(decision, Refuse) else None


def test_a_request_that_can_be_in_time_is_admitted() -> None:
    assert outcome(facts(), TierView("fast", ttft_s=4.9)) == Admit("fast")
    assert outcome(facts(), TierView("fast")) == Admit("fast"), "nothing is known yet"


def test_a_request_that_misses_the_objective_of_its_class_is_refused_with_the_time_until_it_would_not() -> None:
    decision = outcome(facts(), TierView("fast", ttft_s=8.0))

    assert decision == Refuse("fast", Reason.TTFT, 8.0, 5.0, retry_after_s=3.0, ceiling=0.5 * 2)
    assert reason(facts(INTERACTIVE), TierView("fast", ttft_s=1.5)) is Reason.TTFT
    assert reason(facts(BATCH), TierView("fast", ttft_s=500.0)) is None, "batch has no objective"


def test_a_long_prompt_is_admitted_for_a_deadline_as_for_an_objective_of_the_same_time() -> None:
    view = TierView("fast", ttft_s=7.0, alone_s=5.0, wait_limit=0.4)
    config = AdmissionConfig(standard=ClassAdmission(ttft_s=15.0))

    assert check(facts(), view, config) is None
    assert check(facts(deadline_s=15.0), view, config) is None
    refused = check(facts(deadline_s=15.0), replace(view, ttft_s=9.5), config)
    assert refused is not None
    assert (refused.reason, refused.limit) == (Reason.DEADLINE, 9.0)


def test_a_deadline_counts_for_any_class() -> None:
    assert reason(facts(BATCH, deadline_s=2.0), TierView("fast", ttft_s=3.0)) is Reason.DEADLINE
    assert reason(facts(STANDARD, deadline_s=9.0), TierView("fast", ttft_s=8.0)) is Reason.TTFT


def test_a_request_that_is_as_late_on_an_idle_tier_is_not_refused_for_the_objective() -> None:
    assert reason(facts(), TierView("fast", ttft_s=8.0, alone_s=7.9)) is None
    assert reason(facts(deadline_s=5.0), TierView("fast", ttft_s=8.0, alone_s=7.9)) is Reason.DEADLINE


def test_an_error_of_the_predictions_leaves_less_of_the_objective() -> None:
    assert reason(facts(), TierView("fast", ttft_s=4.0, wait_limit=0.7)) is Reason.TTFT


def test_a_full_queue_refuses_by_requests_and_by_tokens() -> None:
    full = TierView("fast", waiting_requests=10, own_requests=10, waiting_tokens=2000, own_tokens=2000)
    large = TierView("fast", waiting_requests=1, own_requests=1, waiting_tokens=9_900, own_tokens=9_900)

    assert reason(facts(), full) is Reason.QUEUE_REQUESTS
    assert reason(facts(), large) is Reason.QUEUE_TOKENS
    assert reason(facts(), TierView("fast", replicas=2, waiting_requests=10, own_requests=10)) is None


def test_a_tenant_below_its_share_finds_room_in_a_queue_that_another_has_filled() -> None:
    crowded = TierView("fast", waiting_requests=10, own_requests=0, tenants=2)

    assert reason(facts(), crowded) is None
    assert reason(facts(), TierView("fast", waiting_requests=20, own_requests=0, tenants=2)) is Reason.QUEUE_REQUESTS


def test_one_request_that_is_larger_than_the_queue_runs_if_nothing_waits() -> None:
    huge = RequestFacts("acme", STANDARD, 1, 50_000, 0)

    assert decide(huge, "fast", {"fast": TierView("fast")}, ORDER, CONFIG) == Admit("fast")


def test_classes_that_would_starve_lower_ones_wait_for_them() -> None:
    greedy = TierView("fast", waiting_requests=3, own_requests=3, started_share=0.95, starving=1)

    assert reason(facts(INTERACTIVE), greedy) is Reason.CLASS_SHARE
    assert reason(facts(INTERACTIVE), replace(greedy, has_little=True)) is None, "another tenant is why"
    assert reason(facts(INTERACTIVE), TierView("fast", waiting_requests=3, started_share=0.95)) is None
    assert reason(facts(INTERACTIVE), TierView("fast", waiting_requests=3, started_share=0.85, starving=1)) is None


def test_a_tier_without_a_replica_refuses_nothing() -> None:
    assert outcome(facts(), TierView("fast", replicas=0, ttft_s=99.0)) == Admit("fast")


@pytest.mark.parametrize(
    ("spill", "tier"), [("none", None), ("up", "frontier"), ("down", "fast"), ("any", "frontier")], ids=str
)
def test_a_refused_request_spills_where_it_may(spill: Spill, tier: str | None) -> None:
    views = [TierView("balanced", ttft_s=9.0), TierView("fast", ttft_s=0.1), TierView("frontier", ttft_s=0.1)]
    decision = outcome(facts(spill=spill), *views)

    if tier is None:
        assert isinstance(decision, Refuse)
    else:
        assert isinstance(decision, Admit)
        assert decision.tier == tier
        assert decision.instead_of is not None
        assert decision.instead_of.reason is Reason.TTFT


def test_it_spills_to_none_that_is_full_too_small_or_away() -> None:
    late = TierView("fast", ttft_s=9.0)

    for other in (
        TierView("balanced", ttft_s=9.0),
        TierView("balanced", context_length=149),
        TierView("balanced", replicas=0),
    ):
        assert isinstance(outcome(facts(spill="any"), late, other), Refuse)
    assert isinstance(outcome(facts(spill="any"), late, TierView("balanced", context_length=150)), Admit)


def test_a_request_narrows_what_its_tenant_allows_and_never_widens_it() -> None:
    ways: tuple[Spill, ...] = ("none", "up", "down", "any")
    for allowed in ways:
        for asked in ways:
            targets = set(spill_targets("balanced", ORDER, narrowed(allowed, asked)))
            assert targets == set(spill_targets("balanced", ORDER, allowed)) & set(
                spill_targets("balanced", ORDER, asked)
            )
        assert narrowed(allowed, None) == allowed


def test_a_tier_may_have_terms_of_its_own() -> None:
    config = AdmissionConfig(tiers={"fast": TierAdmission(standard=ClassAdmission(ttft_s=0.5))})

    assert config.terms("fast", STANDARD).ttft_s == 0.5
    assert config.terms("fast", BATCH).ttft_s is None
    assert config.terms("balanced", STANDARD).ttft_s == AdmissionConfig().standard.ttft_s


@given(st.floats(-1, 3), st.floats(0.01, 1))
def test_ceilings_fall_with_the_pressure_lower_classes_further_and_never_below_the_floor(
    pressure: float, floor: float
) -> None:
    shares = [ceiling(each, pressure, floor) for each in Priority]

    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] >= floor - 1e-9
    assert all(ceiling(each, 0.0, floor) == 1.0 for each in Priority)
    assert ceiling(BATCH, 1.0, floor) == pytest.approx(floor)


@given(
    st.sampled_from(list(Priority)),
    st.floats(0, 100),
    st.floats(0, 10),
    st.integers(0, 40),
    st.integers(0, 40),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_refusal_names_a_limit_that_is_exceeded_and_a_finite_wait(
    priority: Priority, ttft_s: float, alone_s: float, waiting: int, own: int, pressure: float, share: float
) -> None:
    view = TierView(
        "fast",
        ttft_s=ttft_s,
        alone_s=alone_s,
        pressure=pressure,
        started_share=share,
        starving=1,
        waiting_requests=waiting,
        own_requests=min(own, waiting),
        waiting_tokens=200 * waiting,
        own_tokens=200 * min(own, waiting),
    )
    decision = outcome(facts(priority), view)

    if isinstance(decision, Refuse):
        extra = {Reason.QUEUE_REQUESTS: 1, Reason.QUEUE_TOKENS: 200}.get(decision.reason, 0)
        assert decision.value + extra > decision.limit
        assert 0 <= decision.retry_after_s < 1000


def test_the_objective_grows_with_the_prompt() -> None:
    config = AdmissionConfig(standard=ClassAdmission(ttft_s=2.0, ttft_s_per_1k_tokens=0.25))
    view = TierView("fast", ttft_s=6.0)
    short, long = (RequestFacts("a", Priority.STANDARD, 1, tokens) for tokens in (1_000, 20_000))
    assert check(short, view, config) is not None
    assert check(long, view, config) is None  # 7 s are allowed


@given(prompt=st.integers(0, 100_000), cached=st.dictionaries(st.text(max_size=3), st.integers(0, 200_000), max_size=4))
def test_cached_tokens_are_no_work_but_the_last_token_is(prompt: int, cached: dict[str, int]) -> None:
    facts = RequestFacts("a", Priority.STANDARD, 1, prompt, cached_tokens=cached)
    assert min(prompt, 1) <= facts.uncached_tokens <= prompt
    assert facts.uncached_tokens == prompt or cached


def test_what_is_cached_on_a_tier_is_work_for_the_one_that_a_request_spills_to() -> None:
    asked = RequestFacts("acme", STANDARD, 1, 20_000, 50, None, "up", cached_tokens={"replica": 19_999})
    full = TierView("fast", waiting_requests=1, waiting_tokens=10**9)
    most = CONFIG.terms("balanced", STANDARD).max_tokens
    other = TierView("balanced", waiting_requests=1, waiting_tokens=most - 1_000)
    assert reason(asked, replace(other, name="fast")) is None, "there it is cached"
    assert reason(asked, full) is Reason.QUEUE_TOKENS
    refused = outcome(asked, full, other)
    assert isinstance(refused, Refuse)
    assert refused.tier == "fast"
