"""Which requests are surplus: those of a tenant that asks for several times its share beside others that do not."""

from __future__ import annotations

import pytest

from router.admission.tenant_shares import ACTIVE_S, TenantShares


class Tier:
    """A tier that takes 1,000 tokens a second from those that ask, in order, and refuses the rest."""

    def __init__(self) -> None:
        self.shares = TenantShares()
        self.marked: dict[str, list[bool]] = {}  # whether each request was surplus, by tenant
        self.taken: dict[str, list[bool]] = {}  # the same of those that were admitted

    def second(self, at: float, asked: dict[str, int], waiting: int = 0) -> None:
        room = 1000
        for turn in range(max(asked.values())):
            for tenant in (name for name, requests in asked.items() if turn < requests):
                now = at + turn / max(asked.values())
                self.shares.asked(tenant, 100, now)
                surplus = self.shares.surplus(tenant, waiting)
                admitted = room >= 100
                room -= 100 * admitted
                self.shares.decided(tenant, 100, admitted=admitted, surplus=surplus)
                self.marked.setdefault(tenant, []).append(surplus)
                if admitted:
                    self.taken.setdefault(tenant, []).append(surplus)


def test_a_flood_has_its_share_and_the_rest_is_surplus() -> None:
    tier = Tier()
    for second in range(30):
        tier.second(second, {"quiet": 1, "other": 2, "noisy": 200})

    assert not any(tier.marked["quiet"] + tier.marked["other"])
    late = tier.taken["noisy"][-70:]  # of ten seconds, in each of which a third of ten requests is its share
    assert sum(late) == pytest.approx(37, abs=4)
    assert tier.shares.beside_flood("quiet")
    assert not tier.shares.beside_flood("noisy")


@pytest.mark.parametrize(
    "asked",
    [{"alone": 100}, {"one": 50, "two": 40, "three": 60}, {"one": 8, "two": 1}],
    ids=["one tenant", "all ask for too much", "no one is refused"],
)
def test_nothing_is_surplus_where_no_one_suffers(asked: dict[str, int]) -> None:
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
    tier.shares.decided("busy", 1000, admitted=False, surplus=False)
    for second in range(1, 200):
        tier.second(second, {"busy": 3, **{f"other {number}": 1 for number in range(6)}})

    assert not any(tier.marked["busy"][-100:])
