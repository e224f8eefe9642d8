"""Administrators delete stored answers: counted first, and audited."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.router.cached import Cached
from tests.state.cached import all_of


async def invalidate(cached: Cached, **body: Any) -> dict[str, Any]:
    answer = await cached.post("/admin/v1/cache/invalidate", body, "sk-admin")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def filled() -> Cached:
    """Three entries of acme, one of them on another tier and a day old, and one of another tenant."""
    cached = Cached(ttl_s=10 * 86_400)
    await cached.ask("Old question?", model="balanced")
    cached.clock.advance(86_400)
    for text, key in (("What is a quark?", "sk-user"), ("What is a lepton?", "sk-user"), ("Who?", "sk-other")):
        await cached.ask(text, key)
    return cached


@pytest.mark.parametrize(
    ("which", "count"),
    [
        ({"tenant": "acme"}, 3),
        ({"model_version": "fast-model"}, 3),
        ({"model_version": "balanced-model"}, 1),
        ({"template_version": "greeting@1"}, 0),
        ({"question_prefix": "What is"}, 2),
        ({"older_than_s": 3600}, 1),
        ({"tenant": "acme", "model_version": "fast-model", "question_prefix": "What is a q"}, 1),
        ({"all": True}, 4),
    ],
    ids=str,
)
async def test_entries_are_counted_first_and_then_deleted(which: dict[str, Any], count: int) -> None:
    cached = await filled()
    dry = await invalidate(cached, **which)
    assert (dry["dry_run"], dry["count"], len(dry["sample"])) == (True, count, count)
    assert len(await all_of(cached.entries.entries())) == 4
    assert "quark" not in json.dumps(dry)
    done = await invalidate(cached, **which, dry_run=False)
    assert (done["dry_run"], done["count"]) == (False, count)
    assert len(await all_of(cached.entries.entries())) == 4 - count


async def test_one_entry_is_deleted_by_its_id_and_who_did_it_is_in_the_audit_log() -> None:
    cached = await filled()
    entry = (await cached.ask()).headers["x-manta-cache-entry"]
    assert (await invalidate(cached, entry=entry, dry_run=False))["count"] == 1
    assert await cached.status() == "miss; new"
    (day,) = await cached.safety.audit.days("acme")
    (line,) = await cached.safety.audit.lines("acme", day.day, 0, 10)
    record = json.loads(line.partition(" ")[2])
    assert (record["check"], record["outcome"], record["count"]) == ("answer cache", "invalidated", 1)
    assert record["reviewer"]
    assert record["filter"] == {"entry_id": entry}


async def test_only_administrators_invalidate_and_say_what(cached: Cached) -> None:
    assert (await cached.post("/admin/v1/cache/invalidate", {"all": True}, "sk-user")).status_code == 403
    assert (await cached.post("/admin/v1/cache/invalidate", {}, "sk-admin")).status_code == 400
    assert (await cached.post("/admin/v1/cache/invalidate", {"tennant": "x"}, "sk-admin")).status_code == 400
    off = Cached(enabled=False)
    assert (await off.post("/admin/v1/cache/invalidate", {"all": True}, "sk-admin")).status_code == 404
