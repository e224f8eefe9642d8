"""The parts that all commands share: options, the client, and the printing of answers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cluster.admin.client import AdminClient

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Json = Annotated[bool, typer.Option("--json", help="Print JSON, as the admin API answers.")]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant.")]


def client_of(context: typer.Context) -> AdminClient:
    """Returns the client that ``manta`` has opened."""
    client: AdminClient = context.obj
    return client


def show(document: dict[str, Any], as_json: bool, text: str) -> None:
    """Prints ``document`` as JSON if ``as_json`` is set, else ``text``."""
    typer.echo(json.dumps(document, indent=2) if as_json else text)


def seconds_of(text: str) -> int:
    """Returns a duration such as ``90d`` in seconds. Raises BadParameter for other text."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text} is no duration; write 30s, 10m, 12h or 90d")
    return int(found[1]) * UNITS[found[2]]


def date_text(seconds: float | None) -> str | None:
    """Returns a time, in seconds since the epoch, as a UTC date and time to the minute; None for None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
