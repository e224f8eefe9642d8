"""The command ``manta doctor``, whose output must not have secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from cluster.admin.client import AdminClient
from cluster.admin.main import app
from tests.state.conftest import free_port

SECRET = "sk-hidden-quokka"
PASSWORD = "hunter2-quokka"


def config(tmp_path: Path, port: int | None = None, **arguments: Any) -> Path:
    """A Serve config with one tier and a secret key; its file."""
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    args = {
        "router": {"keys": [{"key": SECRET, "tenant": "t", "team": "t"}]},
        "tiers": [{"name": "fast", "engine": {"model": str(model)}}],
    } | arguments
    application = {"name": "manta", "import_path": "cluster.app:build", "args": args}
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump({"http_options": {"port": port or free_port()}, "applications": [application]}))
    return path


def doctor(*arguments: object) -> tuple[dict[str, dict[str, str]], int]:
    """Runs the command; its findings by name, the worst of each, and its exit status."""
    client = AdminClient("http://127.0.0.1:9", "")
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments), "--json"], obj=client)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert SECRET not in result.output
    assert PASSWORD not in result.output
    order = ["ok", "skipped", "warning", "error"]
    rows = sorted(json.loads(result.stdout)["data"], key=lambda row: order.index(row["severity"]))
    return {row["name"]: row for row in rows}, result.exit_code
