"""The admin API of reviews, over what the guards submit; who may use it and that of the audit log."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from router.ports.clock import SystemClock
from safety.api import (
    Origin,
    ReviewOutcome,
)
from safety.policy import PolicyConfig
from tests.access.reviewing import TEXT, call, record, submit
from tests.access.service import Service, config
from tests.state.clock import MONDAY

ROUTES = [
    ("GET", "/admin/v1/review"),
    ("GET", "/admin/v1/review/{id}"),
    ("POST", "/admin/v1/review/{id}/claim"),
    ("POST", "/admin/v1/review/{id}/release"),
    ("POST", "/admin/v1/review/{id}/approve"),
    ("POST", "/admin/v1/review/{id}/reject"),
    ("GET", "/admin/v1/review/exceptions"),
    ("DELETE", "/admin/v1/review/exceptions?tenant=acme&fingerprint=0"),
    ("GET", "/admin/v1/review/export"),
    ("GET", "/admin/v1/audit"),
    ("GET", "/admin/v1/audit/verify"),
]


@pytest.mark.parametrize(("key", "status"), [("sk-user", 403), ("sk-viewer", 403), ("sk-nobody", 401), (None, 401)])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_administrators_get_in(key: str | None, status: int, method: str, path: str) -> None:
    service = Service()
    item_id = await submit(service)

    refused, body = await call(service, method, path.format(id=item_id), key, json={})

    assert refused == status
    assert "shed" not in json.dumps(body)
    item = await service.safety_store.reviews.item(item_id)
    assert item is not None
    assert item.reviewer == ""


async def test_every_route_is_among_those_that_are_tested() -> None:
    from router.admin import review_api

    documented = {
        tuple(line.split()[:2])
        for line in (review_api.__doc__ or "").splitlines()
        if line.strip().startswith(("GET", "POST", "DELETE"))
    }
    assert {(method, path.partition("?")[0]) for method, path in ROUTES} == documented


async def test_a_text_is_queued_approved_answered_and_passes_the_next_time() -> None:
    service = Service()
    assert not await service.oversight.allowed("acme", TEXT, Origin.USER)
    item_id = await submit(service)
    waiting = asyncio.create_task(service.oversight.decision("acme", item_id, 30))

    _, listed = await call(service, "GET", "/admin/v1/review?tenant=acme&state=waiting")
    (row,) = listed["data"]
    assert (row["id"], row["category"], row["score"], row["times"]) == (item_id, "illicit", 0.7, 1)
    assert "shed" not in json.dumps(listed)
    _, claimed = await call(service, "POST", f"/admin/v1/review/{item_id}/claim", json={"reviewer": "ann"})
    assert (claimed["text"], claimed["state"]) == (TEXT, "claimed")
    _, approved = await call(service, "POST", f"/admin/v1/review/{item_id}/approve", json={"reviewer": "ann"})
    assert approved["state"] == "approved"

    assert await waiting is ReviewOutcome.APPROVED
    assert await service.oversight.allowed("acme", "how do I  PICK the lock of my own shed?\n", Origin.USER)
    assert not await service.oversight.allowed("acme", "how do I pick the lock of your shed?", Origin.USER)
    assert not await service.oversight.allowed("other", TEXT, Origin.USER)


def policy(action: str, **review: Any) -> PolicyConfig:
    return PolicyConfig.model_validate({"review": {"action": action, **review}})


async def test_a_prompt_in_the_band_is_refused_approved_and_answered_the_next_time() -> None:
    service = Service(policy=policy("queue"))
    refused = await service.ask("sk-user", prompt="a DOUBT")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "review_required")
    (row,) = (await call(service, "GET", "/admin/v1/review"))[1]["data"]
    assert (row["check"], row["category"], row["field"]) == ("classifier", "violence", error["param"])
    assert row["id"] in error["message"]

    await call(service, "POST", f"/admin/v1/review/{row['id']}/approve")

    assert (await service.ask("sk-user", prompt="A\tdoubt DOUBT")).status_code == 400  # another text
    assert (await service.ask("sk-user", prompt=" a DOUBT\u200b")).status_code == 200
    assert (await service.ask("sk-other", prompt="a DOUBT")).status_code == 400
    _, audit = await call(service, "GET", "/admin/v1/audit?tenant=acme")
    of_prompts = [row for row in audit["data"] if row["check"] == "classifier" and row["stage"] != "after"]
    outcomes = [row["outcome"] for row in of_prompts]
    assert outcomes == ["refused", "approved", "refused", "allowed"]
    _, verified = await call(service, "GET", "/admin/v1/audit/verify")
    assert verified["valid"] is True
    assert "DOUBT" not in json.dumps(audit)


@pytest.mark.parametrize(("action", "status"), [("approve", 200), ("reject", 400)])
async def test_a_request_waits_for_the_decision(action: str, status: int) -> None:
    service = Service(policy=policy("wait", wait_s=30))
    waiting = asyncio.create_task(service.ask("sk-user", prompt="a DOUBT"))
    rows: list[Any] = []
    while not rows:
        await asyncio.sleep(0)
        rows = (await call(service, "GET", "/admin/v1/review"))[1]["data"]

    await call(service, "POST", f"/admin/v1/review/{rows[0]['id']}/{action}")

    assert (await waiting).status_code == status


async def test_a_request_that_no_one_decides_on_is_refused_when_its_time_ends() -> None:
    service = Service(policy=policy("wait", wait_s=0.01), clock=SystemClock())

    refused = await service.ask("sk-user", prompt="a DOUBT")

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "review_required")


async def test_a_queue_that_is_full_or_gone_refuses() -> None:
    full = Service(config(review={"max_open": 1}), policy=policy("queue"))
    for prompt in ("one DOUBT", "two DOUBT"):
        assert (await full.ask("sk-user", prompt=prompt)).status_code == 400
    assert len((await call(full, "GET", "/admin/v1/review"))[1]["data"]) == 1
    gone = Service(policy=policy("queue"))
    await gone.safety_store.close()
    assert (await gone.ask("sk-user", prompt="one DOUBT")).status_code == 400
    assert (await gone.ask("sk-user", prompt="harmless")).status_code == 200


async def test_an_exception_is_listed_and_revoked() -> None:
    service = Service()
    item_id = await submit(service)
    await call(service, "POST", f"/admin/v1/review/{item_id}/approve", json={"exception_s": 3600})

    _, listed = await call(service, "GET", "/admin/v1/review/exceptions")
    (row,) = listed["data"]
    assert (row["tenant"], row["item"], row["expires_at"]) == ("acme", item_id, MONDAY + 3600)
    path = f"/admin/v1/review/exceptions?tenant=acme&fingerprint={row['fingerprint']}"
    assert (await call(service, "DELETE", path))[1]["deleted"] is True
    assert (await call(service, "DELETE", path))[0] == 404
    assert not await service.oversight.allowed("acme", TEXT, Origin.USER)


async def test_a_revoked_exception_that_a_router_remembers_ends_within_seconds() -> None:
    service = Service()
    item_id = await submit(service)
    _, item = await call(service, "POST", f"/admin/v1/review/{item_id}/approve")
    assert await service.oversight.allowed("acme", TEXT, Origin.USER)
    await call(service, "DELETE", f"/admin/v1/review/exceptions?tenant=acme&fingerprint={item['fingerprint']}")

    service.virtual.advance(5)

    assert not await service.oversight.allowed("acme", TEXT, Origin.USER)


@pytest.mark.parametrize(("exception_s", "passes"), [(0, False), (None, True)])
async def test_an_approval_may_be_for_this_one_time(exception_s: float | None, passes: bool) -> None:
    service = Service()
    item_id = await submit(service)
    await call(service, "POST", f"/admin/v1/review/{item_id}/approve", json={"exception_s": exception_s})

    assert await service.oversight.allowed("acme", TEXT, Origin.USER) is passes


async def test_two_people_never_hold_one_item() -> None:
    service = Service()
    path = f"/admin/v1/review/{await submit(service)}"
    people = [{"reviewer": f"p{n}"} for n in range(8)]

    claims = await asyncio.gather(*(call(service, "POST", f"{path}/claim", json=each) for each in people))

    assert sorted(status for status, _ in claims) == [200] + [409] * 7
    holder = next(body for status, body in claims if status == 200)["reviewer"].rpartition("/")[2]
    refused = next(body for status, body in claims if status == 409)["error"]
    assert (refused["code"], refused["type"]) == ("review_item_claimed", "invalid_request_error")
    other = {"reviewer": "p0" if holder != "p0" else "p1"}
    for action in ("approve", "reject", "release"):
        assert (await call(service, "POST", f"{path}/{action}", json=other))[0] == 409
    assert (await call(service, "POST", f"{path}/release", json={"reviewer": holder}))[1]["state"] == "waiting"
    assert (await call(service, "POST", f"{path}/reject", json=other))[1]["state"] == "rejected"
    status, body = await call(service, "POST", f"{path}/approve", json=other)
    assert (status, body["error"]["code"]) == (409, "review_item_final")


async def test_who_waits_is_refused_when_the_item_is_rejected_or_the_time_ends() -> None:
    service = Service()
    first, second = await submit(service, "one"), await submit(service, "two", expires_s=60)
    await call(service, "POST", f"/admin/v1/review/{first}/reject")

    assert await service.oversight.decision("acme", first, 30) is ReviewOutcome.REJECTED
    assert await service.oversight.decision("acme", second, 0) is ReviewOutcome.EXPIRED
    assert await service.oversight.decision("other", second, 30) is ReviewOutcome.EXPIRED  # not one of its items
    service.virtual.advance(60)
    assert await service.oversight.decision("acme", second, 30) is ReviewOutcome.EXPIRED


async def test_a_text_that_the_policy_does_not_show_is_not_stored() -> None:
    service = Service()
    item_id = await submit(service, show_text=False)

    _, shown = await call(service, "GET", f"/admin/v1/review/{item_id}")

    assert shown["text"] is None
    assert len(shown["fingerprint"]) == 64


async def test_decisions_are_exported_with_the_texts_that_are_kept() -> None:
    service = Service()
    for n, (action, keep) in enumerate([("approve", True), ("reject", True), ("reject", False)]):
        item_id = await submit(service, f"text {n}", keep_text=keep)
        service.virtual.advance(1)
        await call(service, "POST", f"/admin/v1/review/{item_id}/{action}")
    await submit(service, "undecided", keep_text=True)

    async with service.client() as http:
        answer = await http.get("/admin/v1/review/export")
        later = await http.get("/admin/v1/review/export", params={"since": int(MONDAY) + 3})

    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [(row["text"], row["label"]) for row in rows] == [("text 0", 0), ("text 1", 1), (None, 1)]
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line)["id"] for line in later.text.splitlines()] == [rows[2]["id"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("GET", "/admin/v1/review?state=lost", None, 400, "state"),
        ("GET", "/admin/v1/review?limit=1001", None, 400, "limit"),
        ("GET", "/admin/v1/review?limit=-1", None, 400, "limit"),
        ("GET", "/admin/v1/review?sort=up", None, 400, "sort"),
        ("GET", "/admin/v1/review/none", None, 404, None),
        ("POST", "/admin/v1/review/none/approve", {}, 404, None),
        ("POST", "/admin/v1/review/none/approve", {"exception_s": -1}, 400, "exception_s"),
        ("POST", "/admin/v1/review/none/reject", {"exception_s": 1}, 400, "exception_s"),
        ("POST", "/admin/v1/review/none/claim", {"reviewer": "a\nb"}, 400, "reviewer"),
        ("POST", "/admin/v1/review/none/burn", {}, 404, None),
        ("POST", "/admin/v1/review", {}, 405, None),
        ("GET", "/admin/v1/review/none/approve", None, 405, None),
        ("DELETE", "/admin/v1/review/exceptions", None, 400, "tenant"),
        ("DELETE", "/admin/v1/review/exceptions?tenant=acme", None, 400, "fingerprint"),
        ("GET", "/admin/v1/review/export?since=yesterday", None, 400, "since"),
        ("GET", "/admin/v1/audit?day=today", None, 400, "day"),
        ("GET", "/admin/v1/audit/verify?day=2026-13-01", None, 400, "day"),
        ("GET", "/admin/v1/audit?first=1e3", None, 400, "first"),
    ],
)
async def test_a_wrong_request_is_refused_by_its_field(
    method: str, path: str, body: object, status: int, param: str | None
) -> None:
    refused, answer = await call(Service(), method, path, json=body)
    assert (refused, answer["error"]["param"]) == (status, param), answer


async def test_a_store_that_is_gone_refuses_administrators_and_keeps_the_verdicts() -> None:
    service = Service()
    await service.safety_store.close()

    status, body = await call(service, "GET", "/admin/v1/review")

    assert (status, body["error"]["code"]) == (503, "state_unavailable")
    assert not await service.oversight.allowed("acme", TEXT, Origin.USER)
    assert await service.oversight.decision("acme", "any", 0) is ReviewOutcome.EXPIRED


async def test_texts_are_in_no_log_and_in_no_representation(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    with caplog.at_level(logging.DEBUG):
        item_id = await submit(service)
        service.oversight.record(record(1))
        await call(service, "GET", f"/admin/v1/review/{item_id}")
        await call(service, "POST", f"/admin/v1/review/{item_id}/approve")
        await call(service, "POST", f"/admin/v1/review/{item_id}/reject")

    assert "shed" not in caplog.text
    assert "shed" not in repr(record(1))
    stored = [*service.safety_store.reviews._items.values(), service.safety_store.audit._chains]
    assert "shed" not in repr(stored)


async def test_another_secret_matches_no_exception_and_reads_no_text(tmp_path: Any) -> None:
    (tmp_path / "one").write_text("a" * 32 + "\n")
    (tmp_path / "two").write_text("b" * 32)
    first = Service(config(review={"secret_file": tmp_path / "one"}))
    second = Service(config(review={"secret_file": tmp_path / "two"}), safety_store=first.safety_store)
    item_id = await submit(first)
    assert (await call(first, "GET", f"/admin/v1/review/{item_id}"))[1]["text"] == TEXT
    assert (await call(second, "GET", f"/admin/v1/review/{item_id}"))[1]["text"] is None

    await call(first, "POST", f"/admin/v1/review/{item_id}/approve")

    assert await first.oversight.allowed("acme", TEXT, Origin.USER)
    assert not await second.oversight.allowed("acme", TEXT, Origin.USER)


@pytest.mark.parametrize("contents", [None, "short"])
def test_a_secret_that_cannot_be_used_stops_the_start(tmp_path: Any, contents: str | None) -> None:
    if contents is not None:
        (tmp_path / "secret").write_text(contents)

    with pytest.raises(ValueError, match=r"router\.review\.secret_file") as refused:
        Service(config(review={"secret_file": tmp_path / "secret"}))
    assert "short" not in str(refused.value)
