"""``manta cache`` over the admin API of a router in this process."""

from __future__ import annotations

import asyncio

import pytest

from tests.access.service import Service, config
from tests.admin.command import document, manta

ENTRY_OPTIONS = ("--entry", f"{'0' * 64}-{'0' * 12}")


@pytest.fixture
def service() -> Service:
    """A service with two stored answers of one tenant."""
    made = Service(config(cache={"enabled": True}))

    async def fill() -> None:
        for question in ("First?", "Second?"):
            messages = [{"role": "user", "content": question}]
            answer = await made.ask("sk-user", "/v1/chat/completions", prompt=None, messages=messages, temperature=0)
            assert answer.headers["x-manta-cache"] == "miss; new"
            await asyncio.sleep(0.01)  # what is stored beside the request

    asyncio.run(fill())
    return made


def test_stored_answers_are_shown_counted_and_deleted(service: Service) -> None:
    (row,) = document(manta(service, "cache", "show", "--json"))["data"]
    assert (row["tenant"], row["entries"]) == ("acme", 2)
    counted = manta(service, "cache", "invalidate", "--tenant", "acme", "--prefix", "First")
    assert "1 stored answers: would be deleted" in counted.stdout
    assert "First" not in counted.stdout
    done = document(manta(service, "cache", "invalidate", "--model-version", "fast-model", "--yes", "--json"))
    assert (done["dry_run"], done["count"]) == (False, 2)
    assert document(manta(service, "cache", "show", "--json"))["data"] == []
    log = manta(service, "audit", "show", "--tenant", "acme").stdout
    assert "invalidated" in log


def test_what_to_delete_must_be_said(service: Service) -> None:
    assert manta(service, "cache", "invalidate", "--yes").exit_code == 2
    assert document(manta(service, "cache", "invalidate", *ENTRY_OPTIONS, "--json"))["count"] == 0
    assert document(manta(service, "cache", "invalidate", "--all", "--older-than", "1h", "--json"))["count"] == 0
    assert document(manta(service, "cache", "invalidate", "--all", "--json"))["count"] == 2
