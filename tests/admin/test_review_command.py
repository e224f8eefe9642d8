"""``manta review`` and ``manta audit`` over the admin API of a router in this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from safety.api import Action, AuditRecord, Origin, Passage, ReviewTerms, Stage, Subject, Verdict
from tests.access.service import Service
from tests.admin.command import document, manta
from tests.state.clock import MONDAY

TEXT = "Pick the lock\x1b[2J of my\u202e shed\nnow"


@pytest.fixture
def service() -> Service:
    return Service()


def submit(service: Service, text: str = TEXT, **terms: Any) -> str:
    verdict = Verdict("content", "v1", Action.REVIEW, "illicit", 0.7)
    passage = Passage(text, Origin.USER, "messages[0].content")
    return asyncio.run(service.oversight.submit(Subject("acme", "r1"), passage, verdict, ReviewTerms(**terms)))


def test_an_item_is_listed_shown_approved_and_its_exception_revoked(service: Service) -> None:
    item_id = submit(service)

    assert item_id in manta(service, "review", "list").stdout
    shown = manta(service, "review", "show", item_id, "--claim", "--as", "ann").stdout
    assert "category: illicit" in shown
    assert "you hold it until 2026-10-19 00:15" in shown
    refused = manta(service, "review", "approve", item_id, "--as", "bob")
    assert "409: Another reviewer holds this item." in str(refused.exception)
    assert "approved" in manta(service, "review", "approve", item_id, "--as", "ann", "--for", "1d").stdout
    assert asyncio.run(service.oversight.allowed("acme", TEXT, Origin.USER))
    (row,) = document(manta(service, "review", "exceptions", "--json"))["data"]
    assert row["expires_at"] == MONDAY + 86_400
    revoked = manta(service, "review", "exceptions", "--tenant", "acme", "--revoke", row["fingerprint"], "--json")
    assert document(revoked)["deleted"] is True
    assert manta(service, "review", "list").stdout.strip() == "none"


def test_a_text_moves_no_cursor_and_hides_no_words(service: Service) -> None:
    shown = manta(service, "review", "show", submit(service)).stdout

    assert "Pick the lock\\x1b[2J of my\\u202e shed\nnow" in shown
    assert "\x1b[2J" not in shown


def test_an_item_is_rejected_released_and_exported(service: Service, tmp_path: Path) -> None:
    item_id = submit(service, keep_text=True)
    manta(service, "review", "show", item_id, "--claim")
    assert document(manta(service, "review", "release", item_id, "--json"))["state"] == "waiting"
    assert document(manta(service, "review", "reject", item_id, "--json"))["state"] == "rejected"
    assert item_id in manta(service, "review", "list", "--state", "rejected").stdout

    (line,) = manta(service, "review", "export").stdout.splitlines()
    assert (json.loads(line)["text"], json.loads(line)["label"]) == (TEXT, 1)
    target = tmp_path / "labels.jsonl"
    assert document(manta(service, "review", "export", "--output", str(target), "--json"))["decisions"] == 1
    assert json.loads(target.read_text(encoding="utf-8")) == json.loads(line)


def test_the_audit_log_is_shown_and_verified_against_a_noted_head(service: Service) -> None:
    asyncio.run(service.reviews.start())
    for n in range(3):
        service.oversight.record(
            AuditRecord("acme", f"r{n}", Stage.BEFORE, "content", "v1", Action.BLOCK, "refused", "illicit", 0.9, TEXT)
        )
    assert manta(service, "audit", "show", "--tenant", "acme").stdout.count("refused") == 3
    (row,) = document(manta(service, "audit", "verify", "--day", "2026-10-19", "--json"))["data"]
    assert manta(service, "audit", "verify", "--tenant", "acme", "--head", row["head"]).exit_code == 0
    assert manta(service, "audit", "verify", "--tenant", "acme", "--head", "0" * 64).exit_code == 1

    lines = service.safety_store.audit._chains["acme"].lines[int(MONDAY // 86_400)]
    lines[1] = lines[1].replace("refused", "allowed")

    broken = manta(service, "audit", "verify")
    assert broken.exit_code == 1
    assert "NOT VALID: acme, record 2: changed" in broken.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("review", "show", "../keys"),
        ("review", "approve", "a", "--for", "soon"),
        ("review", "exceptions", "--revoke", "f"),
        ("audit", "verify", "--head", "f"),
    ],
)
def test_a_wrong_argument_is_refused_before_it_is_sent(service: Service, arguments: tuple[str, ...]) -> None:
    assert manta(service, *arguments).exit_code == 2


def test_the_help_teaches_by_examples(service: Service) -> None:
    text = manta(service, "review", "--help").stdout
    assert len(text.rstrip().splitlines()) <= 32
    assert "manta review approve ID --for 30d" in text
    assert "manta audit verify --day" in manta(service, "audit", "--help").stdout
