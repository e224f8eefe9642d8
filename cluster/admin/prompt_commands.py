"""``manta prompts``: the stored prompts of tenants."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.admin.command_options import Json, Tenant, client_of, date_text, show
from cluster.admin.text_tables import table

COLUMNS = ("tenant", "id", "active", "latest")
VERSION_COLUMNS = ("version", "active", "created", "author", "description")
ACTIVATION_COLUMNS = ("time", "kind", "version", "author")

HELP = """Store, activate and roll back prompt templates.

\b
A prompt is a list of messages in a small part of Jinja. Its versions never
change. Requests of the tenant name it:
  {"prompt": {"id": "support", "variables": {"company": "Acme"}}, ...}
and get the messages of the active version before their own.

\b
  cat support.json
    {"messages": [{"role": "system", "content": "You help {{ company }}."}],
     "defaults": {"company": "Acme"}, "description": "first draft"}
  manta prompts put acme support support.json --activate
  manta prompts render acme support --variable company=Initech
  manta prompts show acme support        # versions, who activated which
  manta prompts rollback acme support    # to the one before
"""

prompts = typer.Typer(help=HELP, no_args_is_help=True)

TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant that owns the prompt.")]
PromptId = Annotated[str, typer.Argument(metavar="ID", help="The id of the prompt.")]
Author = Annotated[str | None, typer.Option("--as", help="Your name, if several people share the admin key.")]
Version = Annotated[int | None, typer.Option(min=1, help="The version. Default: the active one.")]


@prompts.command("list")
def list_prompts(context: typer.Context, tenant: Tenant = None, as_json: Json = False) -> None:
    """List prompts with their active and their newest versions."""
    query = {"tenant": tenant} if tenant else None
    found = client_of(context).call("GET", "/admin/v1/prompts", query=query)
    show(found, as_json, table(found["data"], COLUMNS))


@prompts.command("put")
def put(
    context: typer.Context,
    tenant: TenantName,
    prompt_id: PromptId,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A template as JSON: messages, defaults, description.")],
    activate_it: Annotated[bool, typer.Option("--activate", help="Make it the active version.")] = False,
    author: Author = None,
    as_json: Json = False,
) -> None:
    """Store a new version.

    Requests get it when it is activated.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{file} must hold an object with messages")
    query = ({"activate": "true"} if activate_it else {}) | ({"author": author} if author else {})
    made = client_of(context).call("POST", f"{_path(tenant, prompt_id)}/versions", document, query)
    state = "active from now on" if made["active"] else "stored; `manta prompts activate` makes it the active one"
    show(made, as_json, f"{prompt_id}@{made['version']} is {state}.")


@prompts.command("show")
def show_prompt(
    context: typer.Context, tenant: TenantName, prompt_id: PromptId, version: Version = None, as_json: Json = False
) -> None:
    """Show the versions of a prompt and their activations.

    With --version: the messages of that one.
    """
    client, path = client_of(context), _path(tenant, prompt_id)
    if version is not None:
        found = client.call("GET", f"{path}/versions/{version}")
        return show(found, as_json, _messages(found["template"]["messages"]))
    found = client.call("GET", path)
    versions = [row | {"created": date_text(row["created_at"])} for row in found["versions"]]
    activations = [row | {"time": date_text(row["at"])} for row in found["activations"]]
    text = f"{table(versions, VERSION_COLUMNS)}\n\n{table(activations, ACTIVATION_COLUMNS)}"
    return show(found, as_json, text)


@prompts.command("activate")
def activate(
    context: typer.Context,
    tenant: TenantName,
    prompt_id: PromptId,
    version: Annotated[int, typer.Argument(min=1, help="The version.")],
    author: Author = None,
    as_json: Json = False,
) -> None:
    """Make a version the active one.

    All routers follow within router.prompts.cache_s (5 seconds).
    """
    made = client_of(context).call("POST", f"{_path(tenant, prompt_id)}/activate", {"version": version} | _body(author))
    show(made, as_json, f"{prompt_id}@{made['version']} is active.")


@prompts.command("rollback")
def rollback(
    context: typer.Context, tenant: TenantName, prompt_id: PromptId, author: Author = None, as_json: Json = False
) -> None:
    """Go back to the version that was active before.

    Again: to the one before that.
    """
    made = client_of(context).call("POST", f"{_path(tenant, prompt_id)}/rollback", _body(author))
    show(made, as_json, f"{prompt_id}@{made['version']} is active again.")


@prompts.command("render")
def render(
    context: typer.Context,
    tenant: TenantName,
    prompt_id: PromptId,
    variable: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A value: JSON, or else text. May be repeated.")
    ] = None,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Show the messages that a request would get."""
    body: dict[str, Any] = {"variables": dict(_variable(each) for each in variable or ())}
    if version is not None:
        body["version"] = version
    found = client_of(context).call("POST", f"{_path(tenant, prompt_id)}/render", body)
    show(found, as_json, _messages(found["messages"]))


def _variable(text: str) -> tuple[str, Any]:
    """Returns the name and the value of ``NAME=VALUE``. Raises BadParameter for other text."""
    name, found, value = text.partition("=")
    if not found or not name.isidentifier():
        raise typer.BadParameter(f"{text} is no NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _messages(messages: list[dict[str, Any]]) -> str:
    return "\n\n".join(f"[{each['role']}]\n{_printable(each['content'])}" for each in messages)


def _printable(text: str) -> str:
    """Returns a text as a terminal may show it: other characters than letters, signs and line breaks are escaped."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def _body(author: str | None) -> dict[str, Any]:
    return {} if author is None else {"author": author}


def _path(tenant: str, prompt_id: str) -> str:
    """Returns the path of a prompt. Raises BadParameter for names that no tenant or prompt can have."""
    for name, further in ((tenant, ":@"), (prompt_id, "")):
        pattern = rf"[A-Za-z0-9][A-Za-z0-9._{further}-]{{0,63}}"
        if not re.fullmatch(pattern, name):
            raise typer.BadParameter(f"{name!r} cannot be the name of a tenant or a prompt")
    return f"/admin/v1/prompts/{tenant}/{prompt_id}"
