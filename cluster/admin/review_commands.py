"""``manta review``: the texts that people decide on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster.admin.command_options import Json, Tenant, client_of, date_text, seconds_of, show
from cluster.admin.text_tables import table

COLUMNS = ("id", "tenant", "state", "category", "score", "check", "times", "waits_until", "reviewer")
EXCEPTION_COLUMNS = ("tenant", "fingerprint", "origin", "category", "passes_until", "reviewer", "item")
FACTS = ("tenant", "category", "score", "check", "version", "origin", "field", "request_id", "key_id", "times")

HELP = """Decide on texts that a check is unsure of.

\b
A text in the review band waits here, encrypted, until a person decides or
its time ends. An approved text passes from then on, for as long as the
tenant's policy says, whatever its case and white space.

\b
  manta review list                  # what waits, the oldest first
  manta review show ID --claim       # hold it and read its text
  manta review approve ID --for 30d  # equal texts pass for 30 days
  manta review reject ID
  manta review exceptions            # what passes; --revoke ends one
  manta review export --output labels.jsonl   # for the next training
"""

review = typer.Typer(help=HELP, no_args_is_help=True)

ItemId = Annotated[str, typer.Argument(metavar="ID", help="The id of the item, from `manta review list`.")]
Reviewer = Annotated[str | None, typer.Option("--as", help="Your name, if several people share the admin key.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="The most items.")]
State = Literal["open", "waiting", "claimed", "approved", "rejected", "expired"]


@review.command("list")
def list_items(
    context: typer.Context,
    tenant: Tenant = None,
    state: Annotated[State, typer.Option(help="The state; open: waiting and claimed.")] = "open",
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """List items, without their texts.

    Open ones: the oldest first; others: the last decided first.
    """
    query = {"state": state, "limit": str(limit)} | ({"tenant": tenant} if tenant else {})
    found = client_of(context).call("GET", "/admin/v1/review", query=query)
    rows = [row | {"waits_until": date_text(row["expires_at"])} for row in found["data"]]
    more = f"\n\nThere are more than {limit}." if found["has_more"] else ""
    show(found, as_json, table(rows, COLUMNS) + more)


@review.command("show")
def show_item(
    context: typer.Context,
    item_id: ItemId,
    claim: Annotated[bool, typer.Option("--claim", help="Hold the item, so that no other reviewer can.")] = False,
    reviewer: Reviewer = None,
    as_json: Json = False,
) -> None:
    """Show an item with its text. The audit log notes it.

    Without --claim other reviewers may still take the item.
    """
    client, path = client_of(context), f"/admin/v1/review/{_id(item_id)}"
    found = client.call("POST", f"{path}/claim", _body(reviewer)) if claim else client.call("GET", path)
    held = f"\nyou hold it until {date_text(found['lease_ends_at'])}" if claim else ""
    facts = "\n".join(f"{name.replace('_', ' ')}: {found[name]}" for name in FACTS if found[name] not in (None, ""))
    text = "the text is not stored" if found["text"] is None else _printable(found["text"])
    show(found, as_json, f"{facts}\nstate: {found['state']}{held}\n\n{text}")


@review.command("approve")
def approve(
    context: typer.Context,
    item_id: ItemId,
    length: Annotated[
        str | None, typer.Option("--for", help="How long the text passes, such as 30d. 0s: this one time.")
    ] = None,
    reviewer: Reviewer = None,
    as_json: Json = False,
) -> None:
    """Let a text pass, and equal texts from now on.

    The request that waits for it goes on within 2 seconds.
    """
    body = _body(reviewer) | ({} if length is None else {"exception_s": seconds_of(length)})
    found = client_of(context).call("POST", f"/admin/v1/review/{_id(item_id)}/approve", body)
    show(found, as_json, f"{item_id} is approved.")


@review.command("reject")
def reject(context: typer.Context, item_id: ItemId, reviewer: Reviewer = None, as_json: Json = False) -> None:
    """Refuse a text, and the request that waits for it."""
    found = client_of(context).call("POST", f"/admin/v1/review/{_id(item_id)}/reject", _body(reviewer))
    show(found, as_json, f"{item_id} is rejected.")


@review.command("release")
def release(context: typer.Context, item_id: ItemId, reviewer: Reviewer = None, as_json: Json = False) -> None:
    """Give back an item that you hold."""
    found = client_of(context).call("POST", f"/admin/v1/review/{_id(item_id)}/release", _body(reviewer))
    show(found, as_json, f"{item_id} waits again.")


@review.command("exceptions")
def exceptions(
    context: typer.Context,
    tenant: Tenant = None,
    revoke: Annotated[str | None, typer.Option(metavar="FINGERPRINT", help="End this one of --tenant.")] = None,
    as_json: Json = False,
) -> None:
    """List approved texts that pass, or end one.

    They are shown by their fingerprints. Routers follow within 5 seconds.
    """
    client = client_of(context)
    if revoke is not None:
        if tenant is None:
            raise typer.BadParameter("--revoke needs --tenant")
        query = {"tenant": tenant, "fingerprint": revoke}
        return show(client.call("DELETE", "/admin/v1/review/exceptions", query=query), as_json, "It passes no longer.")
    found = client.call("GET", "/admin/v1/review/exceptions", query={"tenant": tenant} if tenant else None)
    rows = [row | {"passes_until": date_text(row["expires_at"])} for row in found["data"]]
    return show(found, as_json, table(rows, EXCEPTION_COLUMNS))


@review.command("export")
def export(
    context: typer.Context,
    tenant: Tenant = None,
    since: Annotated[int, typer.Option(min=0, help="Decided at or after this time, in seconds since the epoch.")] = 0,
    output: Annotated[Path | None, typer.Option(help="The file. Default: the terminal.")] = None,
    as_json: Json = False,
) -> None:
    """Write decisions as JSON lines, for training.

    Label 1 is rejected, 0 approved. Texts are in it where the tenant's policy keeps them.
    """
    query = {"since": str(since)} | ({"tenant": tenant} if tenant else {})
    lines = client_of(context).text("/admin/v1/review/export", query)
    if output is None:
        sys.stdout.write(lines)
        return
    output.write_text(lines, encoding="utf-8")
    count = lines.count("\n")
    typer.echo(json.dumps({"decisions": count, "file": str(output)}) if as_json else f"{count} decisions in {output}")


def _body(reviewer: str | None) -> dict[str, Any]:
    return {} if reviewer is None else {"reviewer": reviewer}


def _id(text: str) -> str:
    """Returns an item id as a part of a URL. Raises BadParameter for what cannot be one."""
    if not re.fullmatch(r"[a-z0-9]{1,64}", text):
        raise typer.BadParameter("that is no item id; `manta review list` has them")
    return text


def _printable(text: str) -> str:
    """Returns a text as a terminal may show it: control and other invisible characters, which could move the cursor or
    hide words from the reviewer, are escaped."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
