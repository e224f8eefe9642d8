"""The command ``python -m safety redact``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from safety.api import Span
from safety.input_rows import InputError, read_rows
from safety.patterns.recogniser import Recogniser
from safety.patterns.scanner import find
from safety.pii import kinds as pii
from safety.redaction import redact as redacted
from safety.secrets import kinds as secrets

HELP = """Replace personal data and secrets in texts by their kinds, as the service does.

Reads JSON lines with "text", and writes each with two fields more: "redacted", and "entities", a list of {"type",
"start", "end"} in the order of the text, where start and end count its characters. Other fields stay as they are. The
types are the names that Presidio and detect-secrets give them: EMAIL_ADDRESS, CREDIT_CARD, AWS_ACCESS_KEY.

\b
  echo '{"text": "Write to jane@example.com"}' > in.jsonl
  python -m safety redact --input in.jsonl --output out.jsonl
  python -m safety redact --input - --output - --kind EMAIL_ADDRESS < in.jsonl | jq -r .redacted
"""

Input = Annotated[typer.FileText, typer.Option("--input", encoding="utf-8", help="JSON lines; -: stdin.")]
Output = Annotated[typer.FileTextWrite, typer.Option("--output", encoding="utf-8", help="JSON lines; -: stdout.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="May be given several times. Default: all.")]
Summary = Annotated[typer.FileTextWrite | None, typer.Option("--json", help="Write counts and speed to this file.")]


def redact(source: Input, target: Output, kind: Kinds = None, summary: Summary = None) -> None:
    """Redacts the texts of ``source``. Exits with status 1, and a line on stderr, for wrong input."""
    started = time.perf_counter()
    texts, characters, counts = 0, 0, Counter[str]()
    try:
        recognisers = recognisers_of(kind)
        with typer.progressbar(list(read_rows(source)), label="redact", file=sys.stderr) as rows:
            for row in rows:
                spans = find(recognisers, row["text"])
                target.write(json.dumps(with_entities(row, spans), ensure_ascii=False) + "\n")
                texts, characters = texts + 1, characters + len(row["text"])
                counts.update(span.kind for span in spans)
    except (OSError, ValueError, InputError) as error:
        typer.echo(f"redact: {error}", err=True)
        raise typer.Exit(1) from error
    seconds = time.perf_counter() - started
    if summary is not None:
        figures = {
            "texts": texts,
            "characters": characters,
            "seconds": round(seconds, 3),
            "characters_per_second": round(characters / seconds),
            "entities": dict(sorted(counts.items())),
        }
        summary.write(json.dumps(figures, indent=2) + "\n")
    typer.echo(f"{texts} texts, {counts.total()} entities, {seconds:.1f} s", err=True)


def recognisers_of(names: Sequence[str] | None) -> Sequence[Recogniser]:
    """Returns the recognisers of the kinds ``names``; None: of all kinds. Raises InputError for an unknown kind."""
    chosen = set(names or pii.KINDS | secrets.KINDS)
    if unknown := chosen - pii.KINDS - secrets.KINDS:
        known = ", ".join(sorted(pii.KINDS | secrets.KINDS))
        raise InputError(f"unknown kind {', '.join(sorted(unknown))}; known: {known}")
    return [*pii.recognisers_of(chosen & pii.KINDS), *secrets.recognisers_of(chosen & secrets.KINDS)]


def with_entities(row: dict[str, Any], spans: Sequence[Span]) -> dict[str, Any]:
    """Returns ``row`` with the members ``redacted``, its redacted text, and ``entities``, the spans."""
    entities = [{"type": span.kind, "start": span.start, "end": span.end} for span in spans]
    return row | {"redacted": redacted(row["text"], spans), "entities": entities}
