"""``manta audit``: the audit log of the checks and of reviewers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.admin.command_options import Json, Tenant, client_of, date_text, show
from cluster.admin.text_tables import table

RECORD_COLUMNS = (
    "number",
    "time",
    "tenant",
    "stage",
    "check",
    "action",
    "outcome",
    "category",
    "score",
    "reviewer",
    "why",
)
DAY_COLUMNS = ("tenant", "records", "valid", "first_bad_record", "reason", "head")

HELP = """Read and verify the audit log.

\b
Each check writes what it found and what happened then; each reviewer, what
was read and decided. No text is in it, but a keyed hash of it. Records are
chained by hashes for each tenant and day (UTC): one that is changed, removed
or moved is found. Note heads elsewhere, to prove that nothing was rewritten.

\b
  manta audit show --tenant acme              # today
  manta audit verify --day 2026-11-26         # status 1 if a record is bad
  manta audit verify --tenant acme --head HASH   # or it is not that head
"""

audit = typer.Typer(help=HELP, no_args_is_help=True)

Day = Annotated[str | None, typer.Option(help="A date (UTC) such as 2026-11-26. Default: today.")]


@audit.command("show")
def show_records(
    context: typer.Context,
    day: Day = None,
    tenant: Tenant = None,
    first: Annotated[int, typer.Option(min=1, help="The number of the first record of each tenant.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most records.")] = 100,
    as_json: Json = False,
) -> None:
    """Show the records of a day."""
    query = _query(day, tenant) | {"first": str(first), "limit": str(limit)}
    found = client_of(context).call("GET", "/admin/v1/audit", query=query)
    rows = [row | {"time": date_text(row.get("at"))} for row in found["data"]]
    more = f"\n\nThere are more than {limit}; see --first." if found["has_more"] else ""
    show(found, as_json, table(rows, RECORD_COLUMNS) + more)


@audit.command("verify")
def verify(
    context: typer.Context,
    day: Day = None,
    tenant: Tenant = None,
    head: Annotated[str | None, typer.Option(help="The head that you noted for this day of --tenant.")] = None,
    as_json: Json = False,
) -> None:
    """Verify that the records of a day are as they were written.

    Ends with status 1 if they are not.
    """
    if head is not None and tenant is None:
        raise typer.BadParameter("--head needs --tenant")
    found = client_of(context).call("GET", "/admin/v1/audit/verify", query=_query(day, tenant))
    if head is not None and [row["head"] for row in found["data"]] != [head]:
        found |= {"valid": False, "reason": "the head is not the one that was noted"}
    verdict = "The chain is valid." if found["valid"] else f"NOT VALID: {_reason(found)}"
    show(found, as_json, f"{table(found['data'], DAY_COLUMNS)}\n\n{found['day']}: {verdict}")
    if not found["valid"]:
        raise typer.Exit(1)


def _query(day: str | None, tenant: str | None) -> dict[str, str]:
    return {name: value for name, value in (("day", day), ("tenant", tenant)) if value is not None}


def _reason(found: dict[str, Any]) -> str:
    """Returns why a day is not valid: the first bad record of each tenant."""
    bad = [row for row in found["data"] if not row["valid"]]
    named = [f"{row['tenant']}, record {row['first_bad_record']}: {row['reason']}" for row in bad]
    return "; ".join(named) or str(found["reason"])
