"""The admin API of the audit log: records are shown, verified, and hold no text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from router.memory_safety_store import MemorySafetyStore
from router.review.audit_chain import HASH_LENGTH
from tests.access.reviewing import DAY, TODAY, call, record, submit
from tests.access.service import Service
from tests.state.clock import MONDAY


async def test_records_are_shown_and_verified_and_hold_no_text() -> None:
    service = Service()
    await service.reviews.start()
    for number in range(5):
        service.oversight.record(record(number))
    service.oversight.record(record(9, "other"))

    _, shown = await call(service, "GET", f"/admin/v1/audit?day={TODAY}&tenant=acme&first=2&limit=3")
    _, verified = await call(service, "GET", f"/admin/v1/audit/verify?day={TODAY}")

    assert [row["request_id"] for row in shown["data"]] == ["req-1", "req-2", "req-3"]
    assert shown["has_more"] is True
    expected = {"at": MONDAY, "stage": "before", "check": "content", "version": "v1", "action": "review"}
    assert expected.items() <= shown["data"][0].items()
    assert len(shown["data"][0]["fingerprint"]) == 64
    assert "shed" not in json.dumps(shown)
    assert (verified["valid"], [row["records"] for row in verified["data"]]) == (True, [5, 1])
    (other,) = (await call(service, "GET", "/admin/v1/audit?tenant=other"))[1]["data"]
    assert other["fingerprint"] != shown["data"][0]["fingerprint"]


async def test_a_record_says_how_many_turns_were_dropped_where_some_were() -> None:
    service = Service()
    await service.reviews.start()
    service.oversight.record(replace(record(1), outcome="dropped", turns_dropped=2))
    service.oversight.record(record(2))

    _, shown = await call(service, "GET", f"/admin/v1/audit?day={TODAY}&tenant=acme")

    assert [(row["outcome"], row.get("turns_dropped")) for row in shown["data"]] == [("dropped", 2), ("queued", None)]


async def test_what_reviewers_read_and_decide_is_in_the_audit_log() -> None:
    service = Service()
    item_id = await submit(service, keep_text=True)
    await call(service, "GET", f"/admin/v1/review/{item_id}")
    for action in ("claim", "approve"):
        await call(service, "POST", f"/admin/v1/review/{item_id}/{action}", json={"reviewer": "ann"})
    async with service.client() as http:
        await http.get("/admin/v1/review/export")

    _, shown = await call(service, "GET", "/admin/v1/audit?tenant=acme")

    assert [row["outcome"] for row in shown["data"]] == ["read", "claimed", "approved", "read"]
    assert {row["item"] for row in shown["data"]} == {item_id}
    assert shown["data"][2]["reviewer"].endswith("/ann")


def tamper(store: MemorySafetyStore, how: str) -> None:
    """Changes the log as a person with access to the store could."""
    lines = store.audit._chains["acme"].lines[DAY]
    if how == "changed byte":
        lines[2] = lines[2].replace('"queued"', '"allowed"')
    elif how == "changed hash":
        lines[2] = ("0" if lines[2][0] != "0" else "1") + lines[2][1:]
    elif how == "removed":
        del lines[2]
    elif how == "swapped":
        lines[2], lines[3] = lines[3], lines[2]
    elif how == "no record":
        lines[2] = lines[2][:HASH_LENGTH]


@pytest.mark.parametrize("how", ["changed byte", "changed hash", "removed", "swapped", "no record"])
async def test_a_log_that_was_changed_fails_at_the_first_bad_record(how: str) -> None:
    service = Service()
    for number in range(5):
        service.oversight.record(record(number))
    tamper(service.safety_store, how)

    _, verified = await call(service, "GET", "/admin/v1/audit/verify?tenant=acme")

    assert verified["valid"] is False
    assert verified["data"][0]["first_bad_record"] == 3, verified
