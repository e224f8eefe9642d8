"""``manta scale`` over the admin API of a router in this process."""

from __future__ import annotations

import pytest

from tests.access.service import Service
from tests.admin.command import document, manta
from tests.admin.scripted_scaling import ScriptedScaling


@pytest.fixture
def service() -> Service:
    made = Service()
    scaling = ScriptedScaling(made.clock.now() - 2.0)
    return Service(clock=made.clock, scaling=scaling)


def test_a_decision_is_explained_in_words_with_its_numbers(service: Service) -> None:
    text = manta(service, "scale", "explain", "fast").stdout
    assert "fast: 3 replicas, up from 2. Requests arrive at this rate" in text
    assert "9.00 requests/s arrive, one replica serves 4.00" in text
    assert "Why not more: The load needs 2.60 replicas." in text
    assert "ago" not in text
    assert document(manta(service, "scale", "explain", "fast", "--json"))["reason"] == "flow"
    (row,) = document(manta(service, "scale", "list", "--json"))["data"]
    assert (row["tier"], row["target"], row["pin"]) == ("fast", 3, None)
    assert "flow" in manta(service, "scale", "list").stdout


def test_an_old_decision_is_said_to_be_old(service: Service) -> None:
    old = Service(clock=service.clock, scaling=ScriptedScaling(service.clock.now() - 60.0))
    assert "decided 60 s ago" in manta(old, "scale", "explain", "fast").stdout


def test_a_tier_without_a_decision_is_named_with_those_that_have_one(service: Service) -> None:
    answer = manta(service, "scale", "explain", "frontier")
    assert answer.exit_code == 2
    assert "fast" in answer.output


def test_a_pin_is_set_shown_and_removed_and_the_audit_log_has_it(service: Service) -> None:
    assert (
        "has 4 replicas until" in manta(service, "scale", "pin", "fast", "4", "--for", "2h", "--why", "launch").stdout
    )
    assert "Pinned to 4 until" in manta(service, "scale", "explain", "fast").stdout
    assert "launch" in manta(service, "scale", "explain", "fast").stdout
    assert "is not pinned" in manta(service, "scale", "unpin", "fast").stdout
    assert "was not pinned" in manta(service, "scale", "unpin", "fast").stdout
    log = manta(service, "audit", "show", "--tenant", "ops").stdout
    assert "scaling:fast" in log
    assert "pinned to 4" in log
    assert "launch" in log


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("frontier", {"replicas": 2, "expires_in_s": 60}, 404),
        ("fast", {"replicas": 0, "expires_in_s": 60}, 400),
        ("fast", {"replicas": 9, "expires_in_s": 60}, 400),
        ("fast", {"replicas": 2}, 400),
        ("fast", {"replicas": 2, "expires_in_s": 1e9}, 400),
    ],
)
async def test_a_pin_that_makes_no_sense_is_refused(
    service: Service, path: str, body: dict[str, float], status: int
) -> None:
    async with service.client() as http:
        answer = await http.put(f"/admin/v1/scaling/{path}/pin", json=body)
    assert answer.status_code == status, answer.text


async def test_a_service_with_fixed_numbers_says_so_and_users_see_nothing() -> None:
    async with Service().client() as http:
        answer = await http.get("/admin/v1/scaling")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "scaling_not_configured")
    async with Service().client("sk-user") as http:
        assert (await http.get("/admin/v1/scaling")).status_code == 403
