"""``manta scale``: how many replicas tiers have, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.admin.command_options import Json, client_of, date_text, seconds_of, show
from cluster.admin.text_tables import table
from cluster.autoscaling.config import LATE_S

COLUMNS = ("tier", "target", "ready", "needed", "reason", "pin", "cold_start_s", "age_s")
HELP = """See why tiers have that many replicas; pin the number.

\b
  manta scale list
  manta scale explain fast
  manta scale pin fast 4 --for 2h --why "launch"
  manta scale unpin fast

Only tiers under `autoscaling` in the config are scaled. Who pins what is in the audit log, see `manta audit show`.
"""

scale = typer.Typer(help=HELP, no_args_is_help=True)

TierName = Annotated[str, typer.Argument(help="The name of the tier.")]


@scale.command("list")
def list_tiers(context: typer.Context, as_json: Json = False) -> None:
    """List the scaled tiers."""
    found = client_of(context).call("GET", "/admin/v1/scaling")
    rows = [
        row
        | {
            "ready": row["numbers"].get("ready"),
            "needed": round(row["numbers"].get("need", 0.0), 2),
            "cold_start_s": round(row["numbers"].get("cold_start_s", 0.0)),
            "pin": None if row["pin"] is None else row["pin"]["replicas"],
            "age_s": round(found["now"] - row["at"]),
        }
        for row in found["data"]
    ]
    show(found, as_json, table(rows, COLUMNS))


@scale.command("explain")
def explain(context: typer.Context, tier: TierName, as_json: Json = False) -> None:
    """Say why a tier has that many replicas, and why not more or fewer."""
    found = client_of(context).call("GET", "/admin/v1/scaling")
    row = next((row for row in found["data"] if row["tier"] == tier), None)
    if row is None:
        names = ", ".join(row["tier"] for row in found["data"]) or "none yet"
        raise typer.BadParameter(f"nothing was decided for {tier}; tiers with decisions: {names}")
    show(row, as_json, explained(row, found["now"]))


@scale.command("pin")
def pin(
    context: typer.Context,
    tier: TierName,
    replicas: Annotated[int, typer.Argument(min=0, help="Within the tier's min and max.")],
    duration: Annotated[str, typer.Option("--for", help="How long, such as 30m or 2h.")],
    why: Annotated[str, typer.Option(help="For those who see it.")] = "",
    as_json: Json = False,
) -> None:
    """Set the number of replicas of a tier for some time."""
    body = {"replicas": replicas, "expires_in_s": seconds_of(duration), "why": why}
    done = client_of(context).call("PUT", f"/admin/v1/scaling/{tier}/pin", body)
    show(done, as_json, f"{tier} has {replicas} replicas until {date_text(done['expires_at'])}.")


@scale.command("unpin")
def unpin(context: typer.Context, tier: TierName, as_json: Json = False) -> None:
    """Let the load decide again."""
    done = client_of(context).call("DELETE", f"/admin/v1/scaling/{tier}/pin")
    show(done, as_json, f"{tier} is not pinned." if done["deleted"] else f"{tier} was not pinned.")


def explained(row: dict[str, Any], now: float) -> str:
    """Returns a decision in words, with its age if it is old. ``row`` is an item of the answer of
    ``/admin/v1/scaling``. ``now`` is in Unix seconds."""
    lines = [row["text"]]
    if (pinned := row["pin"]) is not None:
        why = f": {pinned['why']}" if pinned["why"] else ""
        lines.append(f"Pinned to {pinned['replicas']} until {date_text(pinned['expires_at'])}{why}.")
    if (age_s := now - row["at"]) > LATE_S:
        lines.append(f"This was decided {age_s:.0f} s ago: the autoscaler does not run, or cannot store decisions.")
    return "\n".join(lines)
