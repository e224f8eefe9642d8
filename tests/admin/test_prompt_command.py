"""``manta prompts`` over the admin API of a router in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.access.service import Service
from tests.admin.command import document, manta

TEMPLATE = {"messages": [{"role": "system", "content": "You help {{ company }}\x1b[2J: {{ tags|join(', ') }}."}]}


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "support.json"
    path.write_text(json.dumps(TEMPLATE), encoding="utf-8")
    return str(path)


def test_a_prompt_is_put_activated_shown_and_rolled_back(service: Service, file: str) -> None:
    assert "support@1 is stored" in manta(service, "prompts", "put", "acme", "support", file).stdout
    assert manta(service, "prompts", "activate", "acme", "support", "1", "--as", "ann").exit_code == 0
    assert "support@2 is active" in manta(service, "prompts", "put", "acme", "support", file, "--activate").stdout
    (row,) = document(manta(service, "prompts", "list", "--tenant", "acme", "--json"))["data"]
    assert (row["active"], row["latest"]) == (2, 2)

    assert "support@1 is active again" in manta(service, "prompts", "rollback", "acme", "support").stdout

    shown = manta(service, "prompts", "show", "acme", "support").stdout
    assert "/ann" in shown
    assert "rollback" in shown
    assert "{{ company }}" in manta(service, "prompts", "show", "acme", "support", "--version", "1").stdout


def test_a_rendering_takes_json_and_text_and_moves_no_cursor(service: Service, file: str) -> None:
    manta(service, "prompts", "put", "acme", "support", file, "--activate")
    options = ("--variable", "company=Acme & Co", "--variable", 'tags=["a", "b"]')

    shown = manta(service, "prompts", "render", "acme", "support", *options).stdout

    assert "You help Acme & Co\\x1b[2J: a, b." in shown
    missing = manta(service, "prompts", "render", "acme", "support")
    assert "needs the variable 'company'" in str(missing.exception)


@pytest.mark.parametrize("names", [("a/b", "support"), ("acme", "../keys"), ("acme", "")])
def test_names_that_lead_elsewhere_are_refused(service: Service, file: str, names: tuple[str, str]) -> None:
    assert manta(service, "prompts", "put", *names, file).exit_code == 2
