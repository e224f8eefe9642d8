"""``manta cache``: the stored answers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.admin.command_options import Json, Tenant, client_of, date_text, seconds_of, show
from cluster.admin.text_tables import table

SIZE_COLUMNS = ("tenant", "entries", "bytes")
ENTRY_COLUMNS = ("entry", "tenant", "model_version", "template_version", "created", "semantic")

HELP = """See and delete stored answers.

\b
  manta cache show
  manta cache invalidate --model-version fast-1        # how many, and some of them
  manta cache invalidate --model-version fast-1 --yes  # deletes them
  manta cache invalidate --tenant acme --older-than 7d --yes

Who deletes what is in the audit log, see `manta audit show`.
"""

cache = typer.Typer(help=HELP, no_args_is_help=True)

Version = Annotated[str | None, typer.Option(help="Only answers of this version.")]


@cache.command("show")
def show_sizes(context: typer.Context, as_json: Json = False) -> None:
    """Show how much each tenant has stored."""
    found = client_of(context).call("GET", "/admin/v1/cache")
    show(found, as_json, table(found["data"], SIZE_COLUMNS))


@cache.command("invalidate")
def invalidate(
    context: typer.Context,
    tenant: Tenant = None,
    model_version: Version = None,
    template_version: Version = None,
    prefix: Annotated[str | None, typer.Option(help="Only questions that begin so. Completions have none.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only older ones, such as 12h or 7d.")] = None,
    entry: Annotated[str | None, typer.Option(help="Only this one, by the header x-manta-cache-entry.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All answers of all tenants.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete them. Without it they are only counted.")] = False,
    as_json: Json = False,
) -> None:
    """Count stored answers, or delete them with --yes."""
    asked: dict[str, Any] = {
        "tenant": tenant,
        "model_version": model_version,
        "template_version": template_version,
        "question_prefix": prefix,
        "older_than_s": None if older_than is None else seconds_of(older_than),
        "entry": entry,
    }
    body = {name: value for name, value in asked.items() if value is not None}
    if not body and not everything:
        raise typer.BadParameter("say which answers, or --all")
    found = client_of(context).call(
        "POST", "/admin/v1/cache/invalidate", {**body, "all": everything, "dry_run": not yes}
    )
    rows = [row | {"created": date_text(row["created_at"])} for row in found["sample"]]
    done = "deleted" if yes else "would be deleted; --yes deletes them"
    show(found, as_json, f"{table(rows, ENTRY_COLUMNS)}\n\n{found['count']} stored answers: {done}.")
