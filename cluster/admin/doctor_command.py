"""``manta doctor``: what is wrong with this machine, a cluster, or what a service depends on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cluster.doctor.finding import Finding, Severity

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.OK: "green", Severity.SKIPPED: "bright_black"}


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="The Serve config, such as deployments/prod.yaml. Without it: this machine.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Also look at each node of this Ray cluster: an address, or auto.")
    ] = None,
    dashboard: Annotated[
        str | None, typer.Option(help="Also compare with what runs, by Ray's dashboard, such as http://127.0.0.1:8265.")
    ] = None,
    ray_token: Annotated[
        str, typer.Option(envvar="RAY_AUTH_TOKEN", show_envvar=False, show_default=False, hidden=True)
    ] = "",
    ray_token_path: Annotated[
        Path | None, typer.Option(envvar="RAY_AUTH_TOKEN_PATH", show_envvar=False, hidden=True)
    ] = None,
    tls: Annotated[list[str] | None, typer.Option(help="HOST:PORT whose certificate to see. Several times.")] = None,
    certificate: Annotated[list[Path] | None, typer.Option(help="A file with a certificate. Several times.")] = None,
    closed: Annotated[
        list[str] | None,
        typer.Option(
            help="A host of which this machine, outside the cluster, should reach no inner port. Several times."
        ),
    ] = None,
    problems: Annotated[bool, typer.Option("--problems", help="Show errors and warnings alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find what is wrong with a machine, a cluster or a config.

    It looks at versions, environment, limits, models, Redis, ports, open ones too, certificates and drift.
    Ends with status 1 if there is an error. It changes nothing, prints no secret, and needs no service that runs. The
    token of the cluster is that of RAY_AUTH_TOKEN, or of the file that RAY_AUTH_TOKEN_PATH names.
    """
    from cluster.doctor.examination import Asked, examine  # Ray and Redis are loaded for this command alone

    asked = Asked(
        config,
        ray_address,
        dashboard,
        ray_token or _content(ray_token_path),
        [_address(each) for each in tls or ()],
        [str(each) for each in certificate or ()],
        closed or (),
    )
    found = examine(asked)
    shown = [each for each in found if not problems or each.severity in (Severity.ERROR, Severity.WARNING)]
    if as_json:
        typer.echo(json.dumps({"object": "list", "data": [asdict(each) for each in shown]}, indent=2))
    else:
        _print(shown)
        _print_counts(found)
    if any(each.severity is Severity.ERROR for each in found):
        raise typer.Exit(1)


def _print(found: Sequence[Finding]) -> None:
    for each in found:
        mark = typer.style(f"{each.severity.value:8}", fg=COLOURS[each.severity])
        typer.echo(f"{mark} {each.name}: {each.seen}")
        if each.remedy:
            typer.echo(f"{'':8} → {each.remedy}")


def _print_counts(found: Sequence[Finding]) -> None:
    counts = Counter(each.severity for each in found)
    typer.echo(f"\nErrors: {counts[Severity.ERROR]}, warnings: {counts[Severity.WARNING]}, fine: {counts[Severity.OK]}")


def _content(path: Path | None) -> str:
    """Returns what is in the file of a token; "" for None, and for a file that cannot be read."""
    try:
        return "" if path is None else path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{text} is no HOST:PORT")
    return host.strip("[]"), int(port)
