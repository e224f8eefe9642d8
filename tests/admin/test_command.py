"""The command ``manta`` over the admin API of a router in this process."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cluster.admin.client import AdminClient, AdminError
from cluster.admin.main import app
from cluster.admin.text_tables import table
from router.ports.state_store import StateHealth
from tests.access.service import Service
from tests.admin.command import document, manta


@pytest.fixture
def service() -> Service:
    return Service()


def test_a_key_is_created_used_counted_rotated_and_revoked(service: Service) -> None:
    options = ("--tenant", "t", "--requests-per-minute", "60", "--tier", "fast", "--expires-in", "90d")
    made = document(manta(service, "keys", "create", *options, "--json"))
    assert (made["tenant"], made["limits"], made["tiers"]) == ("t", {"requests_per_minute": 60}, ["fast"])
    assert made["expires_at"] == service.clock.now() + 90 * 86_400
    assert asyncio.run(service.ask(made["key"])).status_code == 200
    row = document(manta(service, "usage", "--group-by", "tenant", "--json"))["data"][0]
    assert (row["tenant"], row["requests"], row["output_tokens"]) == ("t", 1, 5)
    assert manta(service, "usage", "--csv").stdout.startswith("tenant,team,feature,tier,requests")

    rotated = document(manta(service, "keys", "rotate", made["id"], "--grace", "10m", "--json"))
    assert rotated["key"] != made["key"]
    assert document(manta(service, "keys", "spill", made["id"], "any", "--json"))["spill"] == "any"
    assert document(manta(service, "keys", "spill", made["id"], "tenant", "--json"))["spill"] is None
    changed = document(manta(service, "limits", "set", made["id"], "--tokens-per-day", "1000", "--json"))
    assert changed["limits"] == {"tokens_per_day": 1000}
    assert document(manta(service, "limits", "list", "--json"))["data"][0]["tokens_per_day"] == 1000
    assert document(manta(service, "keys", "revoke", made["id"], "--json"))["deleted"] is True
    assert document(manta(service, "keys", "list", "--json"))["data"] == []
    assert [tier["tier"] for tier in document(manta(service, "status", "--json"))["data"]] == [
        "fast",
        "balanced",
        "frontier",
    ]


def test_people_get_tables_without_secrets(service: Service) -> None:
    key = manta(service, "keys", "create", "--tenant", "t").stdout.splitlines()[0]
    listed = manta(service, "keys", "list").stdout
    assert "t" in listed
    assert key.rpartition("-")[2] not in listed
    assert "USD" in manta(service, "usage", "--by", "1d").stdout
    assert "frontier" in manta(service, "status").stdout
    assert manta(service, "limits", "list").exit_code == 0


@pytest.mark.parametrize("command", [(), ("keys",), ("limits",), ("audit",)])
def test_the_help_fits_a_screen_and_shows_an_example(service: Service, command: tuple[str, ...]) -> None:
    text = manta(service, *command, "--help").stdout
    assert len(text.rstrip().splitlines()) <= 24
    assert command or "manta keys create --tenant" in text


@pytest.mark.parametrize("arguments", [("keys", "revoke", "sk-manta-abc"), ("keys", "rotate", "a", "--grace", "soon")])
def test_a_wrong_argument_is_refused_before_it_is_sent(service: Service, arguments: tuple[str, ...]) -> None:
    assert manta(service, *arguments).exit_code == 2


def test_a_refusal_is_an_error_with_the_services_words(service: Service) -> None:
    refused = manta(service, "keys", "list", key="sk-user")
    assert isinstance(refused.exception, AdminError)
    assert "'admin'" in str(refused.exception)


class Recorded(httpx.BaseTransport):
    """Answers every request with an empty list, and keeps its headers."""

    def __init__(self) -> None:
        self.headers = httpx.Headers()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.headers = request.headers
        return httpx.Response(200, json={"object": "list", "data": []})


@pytest.mark.parametrize(
    ("arguments", "environment", "stdin"),
    [
        ((), "sk-manta-secret\n", ""),
        (("--key-file", "-"), "sk-other", "sk-manta-secret\n"),
        (("--key-file", "key"), "sk-other", ""),
    ],
)
def test_a_key_is_read_from_the_environment_a_file_or_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], environment: str, stdin: str
) -> None:
    (tmp_path / "key").write_text(" sk-manta-secret\r\n")
    monkeypatch.chdir(tmp_path)
    recorded = Recorded()
    monkeypatch.setattr("cluster.admin.main.AdminClient", partial(AdminClient, transport=recorded))
    result = CliRunner(env={"MANTA_ADMIN_KEY": environment}).invoke(app, [*arguments, "keys", "list"], input=stdin)
    assert result.exit_code == 0, result.output
    assert recorded.headers["authorization"] == "Bearer sk-manta-secret"


@pytest.mark.parametrize("key", ["sk-manta-secret\nx", "sk-manta secret", "sk-manta-sécret"])
def test_a_key_that_no_header_can_have_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(AdminError) as refused:
        AdminClient("http://127.0.0.1:9", key).call("GET", "/admin/v1/keys")
    assert "sk-manta" not in "".join(traceback.format_exception(refused.value))


def test_what_cannot_be_sent_is_reported_without_the_request() -> None:
    class Refusing(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.LocalProtocolError(f"Illegal header value {request.headers['authorization']}")

    with pytest.raises(AdminError) as refused:
        AdminClient("http://test", "sk-manta-secret", Refusing()).call("GET", "/admin/v1/keys")
    assert "sk-manta" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_generated_key_and_its_digest_belong_together(service: Service) -> None:
    text = manta(service, "keys", "generate").stdout
    assert hashlib.sha256(text.splitlines()[0].encode()).hexdigest() in text


def test_a_table_aligns_numbers_to_the_right() -> None:
    rows: list[dict[str, Any]] = [{"name": "a", "count": 5}, {"name": None, "count": 12}]
    assert table(rows, ("name", "count")).splitlines() == ["name  count", "a         5", "-        12"]


def test_the_use_of_limits_is_shown(service: Service) -> None:
    made = document(manta(service, "keys", "create", "--tenant", "t", "--requests-per-minute", "60", "--json"))
    asyncio.run(service.ask(made["key"]))
    (row,) = document(manta(service, "limits", "use", made["id"], "--json"))["data"]
    assert (row["limit"], row["value"], row["used"], row["remaining"]) == ("requests_per_minute", 60, 1, 59)
    assert "requests_per_minute" in manta(service, "limits", "use", made["id"]).output


def test_the_status_has_a_line_about_the_shared_state(service: Service) -> None:
    assert "shared state: reached; 0 bytes" in manta(service, "status").output
    service.store.health = lambda: StateHealth({"reservations": "open", "reports": "closed"})  # type: ignore[method-assign]
    assert "shared state: reservations open; 0 bytes" in manta(service, "status").output
