"""The commands of safety: ``python -m safety``."""

from __future__ import annotations

import typer

from safety import classify_command, redact_command

app = typer.Typer(
    help="Classify and redact texts as the service does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """Makes the command line a group of commands, even with a single command."""


# One line for each command.
app.command("classify", help=classify_command.HELP)(classify_command.classify)
app.command("redact", help=redact_command.HELP)(redact_command.redact)

if __name__ == "__main__":
    app(prog_name="python -m safety")
