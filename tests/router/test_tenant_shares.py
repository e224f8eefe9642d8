"""Which requests are surplus: those of a tenant that asks for several times its share beside others that do not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from engine.api import Priority
from load_tests.overload.simulation import VirtualClock
from router.admission.admission import Admission, Place
from router.admission.admission_decision import RequestFacts
from router.admission.tenant_shares import ACTIVE_S, TenantShares
from router.config.admission import AdmissionConfig, ClassAdmission, TierAdmission
from router.config.tenants import Spill
from router.errors import AdmissionRefusedError
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import NoUsageMetrics

Asking = str | tuple[str, Priority]
"""A tenant, and the class of its requests; without one they are standard."""


class Tier:
    """A tier that takes 1,000 tokens a second from those that ask, in order, and refuses the rest."""

    def __init__(self) -> None:
        self.shares = TenantShares()
        self.marked: dict[Asking, list[bool]] = {}  # whether each request was surplus
        self.taken: dict[Asking, list[bool]] = {}  # the same of those that were admitted

    def second(self, at: float, asked: Mapping[Asking, int], waiting: int = 0) -> None:
        room = 1000
        for turn in range(max(asked.values())):
            for asking in (each for each, requests in asked.items() if turn < requests):
                tenant, priority = asking if isinstance(asking, tuple) else (asking, Priority.STANDARD)
                now = at + turn / max(asked.values())
                self.shares.asked(tenant, 100, now)
                surplus = self.shares.surplus(tenant, priority, waiting)
                admitted = room >= 100
                room -= 100 * admitted
                self.shares.decided(tenant, priority, 100, admitted=admitted, surplus=surplus)
                self.marked.setdefault(asking, []).append(surplus)
                if admitted:
                    self.taken.setdefault(asking, []).append(surplus)


def test_a_flood_has_its_share_and_the_rest_is_surplus() -> None:
    tier = Tier()
    for second in range(30):
        tier.second(second, {"quiet": 1, "other": 2, "noisy": 200})

    assert not any(tier.marked["quiet"] + tier.marked["other"])
    late = tier.taken["noisy"][-70:]  # of ten seconds, in each of which a third of ten requests is its share
    assert sum(late) == pytest.approx(37, abs=4)
    assert tier.shares.beside_flood("quiet")
    assert not tier.shares.beside_flood("noisy")


def test_batch_work_of_a_flood_makes_its_interactive_requests_no_surplus() -> None:
    tier = Tier()
    batch, interactive = ("noisy", Priority.BATCH), ("noisy", Priority.INTERACTIVE)
    for second in range(30):
        tier.second(second, {"quiet": 1, interactive: 2, batch: 200})

    assert not any(tier.marked[interactive])
    assert sum(tier.taken[batch][-70:]) > 30


def test_interactive_requests_of_a_flood_leave_none_of_its_share_for_its_batch_work() -> None:
    tier = Tier()
    batch, interactive = ("noisy", Priority.BATCH), ("noisy", Priority.INTERACTIVE)
    for second in range(30):
        tier.second(second, {"quiet": 1, interactive: 200, batch: 2})

    assert all(tier.marked[batch][-20:])
    late = tier.taken[interactive][-70:]  # of ten seconds, in each of which five requests are its share
    assert sum(late) == pytest.approx(20, abs=4)


def test_a_decision_may_come_after_its_tenant_was_forgotten() -> None:
    """A request that looks into the answer cache may wait there for longer than a tenant is remembered."""
    shares = TenantShares()
    shares.asked("slow", 100, 0.0)
    shares.asked("other", 100, 2 * ACTIVE_S)

    shares.decided("slow", Priority.STANDARD, 100, admitted=True, surplus=False)

    assert not shares.surplus("slow", Priority.STANDARD, 20)


def entered(admission: Admission, tenant: str, spill: Spill = "none") -> Place | None:
    """The place of a request for the tier fast; None: it is refused."""
    loads = [TierSnapshot("fast", frozenset({"one"})), TierSnapshot("balanced", frozenset({"two"}))]
    facts = RequestFacts(tenant, Priority.STANDARD, 1, 50, 25, spill=spill)
    try:
        return admission.enter(facts, "fast", ["fast", "balanced"], loads, "id")
    except AdmissionRefusedError:
        return None


def test_a_flood_of_one_tier_makes_nothing_surplus_on_the_tier_that_a_request_spills_to() -> None:
    few = TierAdmission(standard=ClassAdmission(ttft_s=None, max_requests=10))
    clock = VirtualClock()
    admission = Admission(AdmissionConfig(tiers={"fast": few}), clock, NoUsageMetrics())
    marked = []
    for _ in range(10):
        clock.time += 1.0
        places = [entered(admission, "quiet"), *(entered(admission, "noisy") for _ in range(40))]
        marked += [place.surplus for place in places[1:] if place is not None]
        spilled = entered(admission, "noisy", spill="up")
        for place in places:
            if place is not None:
                place.started()
        assert spilled is not None
        assert spilled.tier == "balanced"
        assert not spilled.surplus
        spilled.started()

    assert any(marked)


def test_a_request_that_spills_is_refused_no_more_of_than_it_asked_for() -> None:
    full = TierAdmission(standard=ClassAdmission(ttft_s=None, max_requests=1))
    admission = Admission(AdmissionConfig(tiers={"fast": full}), VirtualClock(), NoUsageMetrics())
    loads = [TierSnapshot(name, frozenset({name}), 65_536) for name in ("fast", "balanced")]
    facts = RequestFacts("a", Priority.STANDARD, 1, 20_000, 25, spill="up", cached_tokens={"fast": 19_900})
    places = [admission.enter(facts, "fast", ["fast", "balanced"], loads, "id") for _ in range(2)]
    assert [place.tier for place in places] == ["fast", "balanced"]
    demand = admission.admitted["fast"].shares._tenants["a"]
    assert demand.refused == demand.asked / 2
    assert admission.admitted["balanced"].total.tokens > 20_000, "nothing of it is cached there"


@pytest.mark.parametrize(
    "asked",
    [{"alone": 100}, {"one": 50, "two": 40, "three": 60}, {"one": 8, "two": 1}],
    ids=["one tenant", "all ask for too much", "no one is refused"],
)
def test_nothing_is_surplus_where_no_one_suffers(asked: dict[Asking, int]) -> None:
    tier = Tier()
    for second in range(30):
        tier.second(second, asked)

    assert not any(flag for flags in tier.marked.values() for flag in flags)


def test_a_flood_is_noticed_by_its_queue_before_anything_is_refused() -> None:
    tier = Tier()
    for second in range(20):
        tier.second(second, {"quiet": 1, "other": 1, "third": 1})
    tier.second(20.0, {"quiet": 1, "other": 1, "third": 1, "noisy": 6}, waiting=20)
    assert not any(tier.marked["noisy"][:2])
    for second in range(21, 28):
        tier.second(second, {"noisy": 9}, waiting=20)
    assert tier.marked["noisy"][-1]


def test_a_tenant_that_has_left_is_no_reason() -> None:
    tier = Tier()
    for second in range(10):
        tier.second(second, {"quiet": 1, "noisy": 100})
    tier.second(11.0 + ACTIVE_S, {"noisy": 100})
    tier.second(12.0 + ACTIVE_S, {"noisy": 100})

    assert not any(tier.marked["noisy"][-100:])


def test_a_flood_that_has_ended_is_forgotten() -> None:
    tier = Tier()
    for second in range(10):
        tier.second(second, {"quiet": 1, "noisy": 100})
    for second in range(10, 110):
        tier.second(second, {"quiet": 1, "noisy": 1})

    assert not any(tier.marked["noisy"][-5:])


def test_a_single_refusal_is_no_reason_for_ever() -> None:
    tier = Tier()
    tier.shares.asked("busy", 1000, 0.0)
    tier.shares.decided("busy", Priority.STANDARD, 1000, admitted=False, surplus=False)
    for second in range(1, 200):
        tier.second(second, {"busy": 3, **{f"other {number}": 1 for number in range(6)}})

    assert not any(tier.marked["busy"][-100:])
