"""The policies through the admin API: what is shown, set and refused, and that requests follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cluster.safety.policy_store import SharedPolicies
from router.config.keys import KeyConfig, Role
from router.config.router import RouterConfig
from router.memory_safety_store import MemorySafetyStore
from router.ports.clock import SystemClock
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import SafetyPolicies
from safety.policy_book import PolicyBook
from tests.router.served import KEY, OTHER_KEY, Served
from tests.safety.scripted_classifier import ScriptedClassifier

ADMIN = "sk-admin"
PATH = "/admin/v1/safety/policies"
CONFIG = RouterConfig(
    keys=(
        KeyConfig(key=KEY, tenant="acme", team="core"),
        KeyConfig(key=OTHER_KEY, tenant="other", team="x"),
        KeyConfig(key=ADMIN, tenant="admin", team="core", role=Role.ADMIN),
    )
)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    book = PolicyBook(SafetyPolicies(), SharedPolicies(MemorySafetyStore(SystemClock())), has_classifier=True)
    made = Served(CONFIG, guard=PolicyGuard(book, Parts(ScriptedClassifier()), admin=book))
    yield made
    made.stop()


def manage(served: Served, method: str, tenant: str = "", body: Any = None, key: str = ADMIN) -> httpx.Response:
    path = f"{PATH}/{tenant}" if tenant else PATH
    return served.http.request(method, path, json=body, headers={"authorization": f"Bearer {key}"})


def ask(served: Served, text: str, key: str = KEY) -> httpx.Response:
    body = {"model": "fast", "messages": [{"role": "user", "content": text}]}
    return served.http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


def test_a_policy_counts_from_its_answer_on_for_its_tenant_alone(served: Served) -> None:
    assert ask(served, "a ravenholm plan").status_code == 200
    put = manage(served, "PUT", "acme", {"phrases": {"block": ["ravenholm"]}, "refusal": "Not that."})
    blocked, other = (ask(served, "a R a v e n h o l m plan", key) for key in (KEY, OTHER_KEY))

    assert (put.status_code, put.json()["source"]) == (200, "stored")
    assert (blocked.status_code, blocked.json()["error"]["message"]) == (400, "Not that.")
    assert other.status_code == 200
    assert manage(served, "GET", "acme").json() == put.json()
    assert [each["tenant"] for each in manage(served, "GET").json()["data"]] == ["*", "acme"]
    assert manage(served, "DELETE", "acme").json()["source"] == "config"
    assert ask(served, "a ravenholm plan").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"content": {"block": 2}}, "content.block"),
        ({"nothing": 1}, "nothing"),
        ({"earlier_turns": "keep"}, "earlier_turns"),
        ([], None),
    ],
)
def test_a_wrong_policy_is_refused_by_its_field(served: Served, body: Any, field: str | None) -> None:
    error = manage(served, "PUT", "acme", body).json()["error"]

    assert (error["code"], error["param"]) == ("invalid_value", field)


def test_only_administrators_see_and_change_policies(served: Served) -> None:
    answers = [manage(served, method, "acme", {}, KEY) for method in ("GET", "PUT", "DELETE")]

    assert {answer.status_code for answer in answers} == {403}
    assert manage(served, "POST", "acme", {}).status_code == 405
    assert manage(served, "GET", "a/b").status_code == 404


def test_earlier_turns_follow_the_policy_of_the_moment(served: Served) -> None:
    def status() -> tuple[int, str]:
        messages = [{"role": "user", "content": text} for text in ("HARM", "And now?")]
        body = {"model": "fast", "messages": messages}
        answer = served.http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
        return answer.status_code, answer.headers["x-manta-safety"].split(";")[0]

    assert status() == (400, "blocked")
    put = manage(served, "PUT", "acme", {"earlier_turns": "drop"})
    assert (put.status_code, put.json()["policy"]["earlier_turns"]) == (200, "drop")
    assert status() == (200, "redacted")
    assert manage(served, "DELETE", "acme").status_code == 200
    assert status() == (400, "blocked")
