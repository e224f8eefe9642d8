"""The command ``manta``."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Annotated, Any, Literal

import typer

from cluster.admin.audit_commands import audit
from cluster.admin.cache_commands import cache
from cluster.admin.client import AdminClient, AdminError
from cluster.admin.command_options import Json, Tenant, client_of, date_text, seconds_of, show
from cluster.admin.doctor_command import doctor
from cluster.admin.prompt_commands import prompts
from cluster.admin.review_commands import review
from cluster.admin.scale_commands import scale
from cluster.admin.text_tables import table
from cluster.admin.top_commands import top
from router.access.key_format import ApiKey, new_id, new_secret

KEY_VARIABLE = "MANTA_ADMIN_KEY"
"""The environment variable with the admin key."""

KEY_COLUMNS = ("id", "tenant", "team", "feature", "role", "active", "expires", "limits", "name")
USAGE_COLUMNS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "cost")
USE_COLUMNS = ("scope", "limit", "value", "used", "remaining", "reset_s")
STATUS_COLUMNS = ("tier", "model", "ready", "replicas", "running", "waiting", "kv_used")
LIMIT_NAMES = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day", "money_per_month")

ROOT_HELP = "Administers a Manta service: `manta keys create --tenant acme --json`."

app = typer.Typer(help=ROOT_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
keys = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)
limits = typer.Typer(help="Show and set how much keys may use.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(limits, name="limits")
app.add_typer(review, name="review")
app.add_typer(audit, name="audit")
app.add_typer(prompts, name="prompts")
app.add_typer(cache, name="cache")
app.add_typer(scale, name="scale")
app.command()(top)
app.command()(doctor)

KeyId = Annotated[str, typer.Argument(help="The id of the key, from `manta keys list`.")]
Several = Annotated[list[str] | None, typer.Option(help="May be given several times. Default: all.")]
Spills = Annotated[
    Literal["none", "up", "down", "any"] | None,
    typer.Option(help="Where requests go that their tier has no room for. Default: as its tenant's."),
]
Requests = Annotated[int | None, typer.Option(min=1, help="Requests in any minute.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Tokens in any minute, input and output together.")]
Concurrent = Annotated[int | None, typer.Option(min=1, help="Requests at the same time.")]
DayTokens = Annotated[int | None, typer.Option(min=1, help="Tokens of a day (UTC).")]
Money = Annotated[float | None, typer.Option(min=0, help="Money of a calendar month (UTC).")]


@app.callback()
def main(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Option(
            envvar="MANTA_URL",
            show_envvar=False,
            show_default=False,
            help="MANTA_URL, or http://127.0.0.1:8000.",
        ),
    ] = "http://127.0.0.1:8000",
    key_file: Annotated[
        typer.FileText | None, typer.Option(help="File of the key (-: stdin), or MANTA_ADMIN_KEY.")
    ] = None,
) -> None:
    """Opens the client that all commands use. A test passes its own as the context's object.

    A key is no argument, since every user of the machine can read those.
    """
    if context.obj is None:
        context.obj = AdminClient(url, os.environ.get(KEY_VARIABLE, "") if key_file is None else key_file.read())


@keys.command("create")
def create(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="The tenant, which is billed and owns the data.")],
    team: Annotated[str, typer.Option(help="The team, for accounting.")] = "default",
    feature: Annotated[str | None, typer.Option(help="The feature, for accounting.")] = None,
    name: Annotated[str | None, typer.Option(help="A description.")] = None,
    role: Annotated[Literal["user", "viewer", "admin"], typer.Option(help="What the key is for.")] = "user",
    expires_in: Annotated[str | None, typer.Option(help="Such as 12h or 90d. Default: never.")] = None,
    tier: Several = None,
    model: Several = None,
    tool: Several = None,
    endpoint: Several = None,
    spill: Spills = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrent_requests: Concurrent = None,
    tokens_per_day: DayTokens = None,
    money_per_month: Money = None,
    as_json: Json = False,
) -> None:
    """Create a key. It is shown this one time: the service keeps a salted hash only."""
    values = (requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_day, money_per_month)
    body: dict[str, Any] = {"tenant": tenant, "team": team, "feature": feature, "name": name, "role": role}
    body |= {"tiers": tier, "models": model, "tools": tool, "endpoints": endpoint, "spill": spill}
    body["limits"] = _limits(values)
    body["expires_in_s"] = None if expires_in is None else seconds_of(expires_in)
    made = client_of(context).call("POST", "/admin/v1/keys", {name: each for name, each in body.items() if each})
    show(made, as_json, f"{made['key']}\n\nid {made['id']}. The key is not shown again.")


@keys.command("generate")
def generate() -> None:
    """Make a first admin key for a config file. Needs no service."""
    key = ApiKey(new_id(), new_secret()).text
    digest = hashlib.sha256(key.encode()).hexdigest()
    typer.echo(f"{key}\n\nFor router.keys in the config, which never has the key itself:\n")
    typer.echo(f'- {{key: "sha256:{digest}", tenant: admin, team: admin, role: admin}}')


@keys.command("list")
def list_keys(
    context: typer.Context,
    tenant: Tenant = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Revoked keys too.")] = False,
    as_json: Json = False,
) -> None:
    """List keys, without their secrets."""
    query = {"include_revoked": "true" if revoked else "false"} | ({"tenant": tenant} if tenant else {})
    found = client_of(context).call("GET", "/admin/v1/keys", query=query)
    rows = [row | {"expires": date_text(row["expires_at"])} for row in found["data"]]
    show(found, as_json, table(rows, KEY_COLUMNS))


@keys.command("spill")
def set_spill(
    context: typer.Context,
    key_id: KeyId,
    to: Annotated[Literal["none", "up", "down", "any", "tenant"], typer.Argument(help="tenant: as its tenant's.")],
    as_json: Json = False,
) -> None:
    """Set where requests with a key go that their tier has no room for: to stronger or weaker tiers, or nowhere."""
    body = {"spill": None if to == "tenant" else to}
    changed = client_of(context).call("PATCH", f"/admin/v1/keys/{_id(key_id)}", body)
    show(changed, as_json, table([changed], ("id", "tenant", "spill")))


@keys.command("rotate")
def rotate(
    context: typer.Context,
    key_id: KeyId,
    grace: Annotated[str, typer.Option(help="How long the former key still works, such as 10m or 1d.")] = "0s",
    as_json: Json = False,
) -> None:
    """Give a key a new secret. Its id, rights and usage stay."""
    body = {"grace_s": seconds_of(grace)}
    made = client_of(context).call("POST", f"/admin/v1/keys/{_id(key_id)}/rotate", body)
    show(made, as_json, f"{made['key']}\n\nid {made['id']}. The key is not shown again.")


@keys.command("revoke")
def revoke(context: typer.Context, key_id: KeyId, as_json: Json = False) -> None:
    """Revoke a key for good. Routers refuse it within a few seconds."""
    found = client_of(context).call("DELETE", f"/admin/v1/keys/{_id(key_id)}")
    show(found, as_json, f"{key_id} is revoked.")


@app.command()
def usage(
    context: typer.Context,
    group_by: Annotated[
        str, typer.Option(help="Any of tenant, team, feature, tier, version, key, outcome; divided by commas.")
    ] = "tenant,team,feature,tier",
    start: Annotated[str | None, typer.Option(help="A date or time, such as 2026-11-01. Default: this month.")] = None,
    end: Annotated[str | None, typer.Option(help="A date or time. Default: now.")] = None,
    by: Annotated[Literal["1m", "1h", "1d"] | None, typer.Option(help="A row for each minute, hour or day.")] = None,
    tenant: Tenant = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Show what was used, and what it cost."""
    query = {"group_by": group_by, "start": start, "end": end, "bucket_width": by, "tenant": tenant}
    asked = {name: value for name, value in query.items() if value is not None}
    client = client_of(context)
    if csv:
        return typer.echo(client.text("/admin/v1/usage", {**asked, "format": "csv"}), nl=False)
    found = client.call("GET", "/admin/v1/usage", query=asked)
    rows = [row | {"from": date_text(row.get("start"))} for row in found["data"]]
    columns = (*(("from",) if by else ()), *group_by.replace(" ", "").split(","), *USAGE_COLUMNS)
    return show(found, as_json, table(rows, columns) + f"\n\ncost in {found['currency']}")


@limits.command("list")
def list_limits(context: typer.Context, tenant: Tenant = None, as_json: Json = False) -> None:
    """List the limits of every key."""
    found = client_of(context).call("GET", "/admin/v1/keys", query={"tenant": tenant} if tenant else None)
    rows = [{"id": row["id"], "tenant": row["tenant"], **row["limits"]} for row in found["data"]]
    show({"object": "list", "data": rows}, as_json, table(rows, ("id", "tenant", *LIMIT_NAMES)))


@limits.command("use")
def show_use(context: typer.Context, key_id: KeyId, as_json: Json = False) -> None:
    """Show how much of the limits of a key, and of its tenant, is used now."""
    found = client_of(context).call("GET", f"/admin/v1/keys/{_id(key_id)}/limits")
    show(found, as_json, table(found["data"], USE_COLUMNS))


@limits.command("set")
def set_limits(
    context: typer.Context,
    key_id: KeyId,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrent_requests: Concurrent = None,
    tokens_per_day: DayTokens = None,
    money_per_month: Money = None,
    as_json: Json = False,
) -> None:
    """Replace all limits of a key. What is not given has no limit."""
    values = (requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_day, money_per_month)
    changed = client_of(context).call("PATCH", f"/admin/v1/keys/{_id(key_id)}", {"limits": _limits(values)})
    show(changed, as_json, table([{"id": key_id, **changed["limits"]}], ("id", *LIMIT_NAMES)))


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show the tiers, their replicas and their load."""
    found = client_of(context).call("GET", "/admin/v1/status")
    show(found, as_json, f"{table(found['data'], STATUS_COLUMNS)}\n\n{_state(found)}")


def _state(found: dict[str, Any]) -> str:
    """Returns how the router that answered reaches what it shares with others, and what it has lost, in a few lines."""
    state, log, unreadable = found["state"], found.get("audit"), found.get("policies", {}).get("unreadable", ())
    failing = [f"{kind} {breaker}" for kind, breaker in state["breakers"].items() if breaker != "closed"]
    waiting = f"{state['journal_bytes']} bytes of ledger entries wait, {state['lost_entries']} entries are lost"
    lines = [f"shared state: {', '.join(failing) or 'reached'}; {waiting}"]
    if log is not None:
        lines.append(f"audit log: {log['journal_bytes']} bytes of records wait, {log['lost_records']} records are lost")
    if unreadable:
        lines.append(f"policies that this release cannot read, of: {', '.join(unreadable)}")
    return "\n".join(lines)


def _limits(values: tuple[int | float | None, ...]) -> dict[str, int | float]:
    """Returns the limits that are set, by their names in the API."""
    return {name: value for name, value in zip(LIMIT_NAMES, values, strict=True) if value is not None}


def _id(text: str) -> str:
    """Returns a key id as a part of a URL. Raises BadParameter for what cannot be one, such as a whole key."""
    if not re.fullmatch(r"[a-z0-9]{1,64}", text):
        raise typer.BadParameter("that is no key id; `manta keys list` has them")
    return text


def run() -> None:
    """Runs the command ``manta``: the entry point of the console script. For an error of the service it prints one line
    and exits with status 1."""
    try:
        app()
    except AdminError as error:
        typer.echo(f"manta: {error}", err=True)
        raise SystemExit(1) from None
