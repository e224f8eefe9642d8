"""``python -m load_tests.safety.pii``: precision and recall of the recognisers, and findings in harmless texts."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from safety.api import Span
from safety.patterns.recogniser import Recogniser
from safety.patterns.scanner import find
from safety.pii import kinds as pii
from safety.secrets import kinds as secrets

DESCRIPTION = """\
Find personal data in texts where it is marked, and in texts that have none.

marked     a JSON list of {"full_text", "spans": [{"entity_type", "start_position", "end_position"}]}, packed or not, as
           presidio-research publishes it. A value is found exactly if kind, start and end are right, and in part if the
           kind is right and the characters overlap. Kinds without a recogniser (names, places) are left out.
harmless   JSON lines; the fields "text", "question", "answer", "prompt" and "canonical_solution" are read, with the
           recognisers of secrets too. All that is found there is counted, and the first ones are printed.
"""

NAMES = {"DOMAIN_NAME": "URL"}  # what the marked set calls a kind
FIELDS = ("text", "question", "answer", "prompt", "canonical_solution")
MAX_SHOWN = 20


@dataclass
class Counts:
    """What was found of one kind. ``exact`` and ``overlapping`` count marked values, ``wrong`` found ones."""

    marked: int = 0
    exact: int = 0
    overlapping: int = 0
    found: int = 0
    wrong: int = 0

    @property
    def figures(self) -> dict[str, float]:
        """The counts, with recall and precision."""
        return asdict(self) | {
            "exact_recall": round(self.exact / max(1, self.marked), 4),
            "recall": round(self.overlapping / max(1, self.marked), 4),
            "exact_precision": round(self.exact / max(1, self.found), 4),
            "precision": round((self.found - self.wrong) / max(1, self.found), 4),
        }


def overlap(one: Span, other: Span) -> bool:
    """Returns whether two spans are of one kind and share characters."""
    return one.kind == other.kind and one.start < other.end and other.start < one.end


def marked_spans(row: dict[str, list[dict[str, str | int]]]) -> list[Span]:
    """Returns what is marked in a row, of the kinds that have a recogniser."""
    spans = [
        Span(int(span["start_position"]), int(span["end_position"]), NAMES.get(kind := str(span["entity_type"]), kind))
        for span in row["spans"]
    ]
    return [span for span in spans if span.kind in pii.KINDS]


def count(counts: dict[str, Counts], marked: Sequence[Span], found: Sequence[Span]) -> None:
    """Adds one text to the counts."""
    for span in marked:
        counts[span.kind].marked += 1
        counts[span.kind].exact += any((span.start, span.end, span.kind) == (x.start, x.end, x.kind) for x in found)
        counts[span.kind].overlapping += any(overlap(span, other) for other in found)
    for span in found:
        counts[span.kind].found += 1
        counts[span.kind].wrong += not any(overlap(span, other) for other in marked)


def opened(path: Path) -> str:
    """Returns the text of a file, unpacked."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def harmless_texts(path: Path) -> Iterator[str]:
    """Yields a text for each line of a file."""
    for line in opened(path).splitlines():
        row = json.loads(line)
        yield "\n".join(str(row[field]) for field in FIELDS if field in row)


def measure_marked(path: Path) -> dict[str, dict[str, float]]:
    """Returns the figures of each kind on a marked set."""
    counts: dict[str, Counts] = defaultdict(Counts)
    recognisers = pii.recognisers_of(pii.KINDS)
    for row in tqdm(json.loads(opened(path)), desc=path.name, disable=not sys.stderr.isatty()):
        count(counts, marked_spans(row), find(recognisers, row["full_text"]))
    return {kind: counts[kind].figures for kind in sorted(counts)}


def measure_harmless(path: Path, recognisers: Sequence[Recogniser]) -> dict[str, object]:
    """Returns how many texts of a file have a finding, which kinds, and the speed."""
    kinds: dict[str, int] = defaultdict(int)
    texts = list(harmless_texts(path))
    flagged, shown = 0, list[str]()
    started = time.process_time()
    for text in tqdm(texts, desc=path.name, disable=not sys.stderr.isatty()):
        spans = find(recognisers, text)
        flagged += bool(spans)
        for span in spans:
            kinds[span.kind] += 1
            shown.append(f"{span.kind}: {text[max(0, span.start - 30) : span.end]!r}")
    seconds = time.process_time() - started
    characters = sum(map(len, texts))
    return {
        "texts": len(texts),
        "flagged": flagged,
        "kinds": dict(kinds),
        "characters_per_second": round(characters / max(seconds, 1e-9)),
        "shown": shown[:MAX_SHOWN],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.safety.pii",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--marked", type=Path, help="the set with marked values")
    parser.add_argument("--harmless", type=Path, nargs="*", default=[], help="files of harmless texts")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    figures: dict[str, object] = {}
    if options.marked:
        marked = measure_marked(options.marked)
        figures["marked"] = marked
        print(f"{'kind':20}{'marked':>8}{'recall':>9}{'exact':>8}{'precision':>11}{'wrong':>7}")
        for kind, row in marked.items():
            print(
                f"{kind:20}{row['marked']:8}{row['recall']:9.3f}{row['exact_recall']:8.3f}"
                f"{row['precision']:11.3f}{row['wrong']:7}"
            )
    recognisers = [*pii.recognisers_of(pii.KINDS), *secrets.recognisers_of()]
    for path in options.harmless:
        result = measure_harmless(path, recognisers)
        figures[path.name] = result
        print(
            f"{path.name}: {result['flagged']} of {result['texts']} texts with a finding, "
            f"{result['characters_per_second']} characters/s {result['kinds']}"
        )
        for line in result["shown"] if isinstance(result["shown"], list) else []:
            print(f"    {line}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
