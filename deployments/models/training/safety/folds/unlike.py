"""Harmless texts unlike those of the mix: long ones in other languages, code, and JSON.

Injections of the judging sets are in two languages, and some are code. The mean of folds that had read them flagged
22 % of problems in arithmetic in ten languages, and 15 % of excerpts of programs.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Final

from deployments.models.training.safety.example import Example, benign
from deployments.models.training.safety.judges import judges_problem
from deployments.models.training.safety.sources import rows

LANGUAGES: Final = 1_200
CODE: Final = 300
SCHEMAS: Final = 150
FLOORS: Final = ("engine", "router", "safety", "cluster")
"""Folders of this repository whose programs are read."""


def harmless_texts(data: Path, repository: Path, seed: int) -> list[Example]:
    """Raises OSError, and ValueError if there are too few texts."""
    rng = random.Random(f"unlike {seed}")
    return [*_problems(data), *_questions(data, rng), *_code(repository, rng), *_schemas(data, rng)]


def _problems(data: Path) -> list[Example]:
    """Returns the problems of MGSM that do not judge, in ten languages."""
    return [benign(str(row["text"]), "mgsm") for row in rows(data / "eval/mgsm.jsonl.gz") if not judges_problem(row)]


def _questions(data: Path, rng: random.Random) -> list[Example]:
    """Returns texts of some questions in one language each."""
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows(data / "benign/xquad_questions_11_languages.jsonl.gz"):
        asked[str(row["lang"])].append(str(row["text"]))
    languages = sorted(asked)
    return [
        benign(rng.choice((" ", "\n")).join(rng.sample(asked[rng.choice(languages)], rng.randint(2, 6))), "languages")
        for _ in range(LANGUAGES)
    ]


def _code(repository: Path, rng: random.Random) -> list[Example]:
    paths = sorted(path for floor in FLOORS for path in (repository / floor).rglob("*.py"))
    if not paths:
        raise ValueError(f"no programs in {repository}")
    texts = [path.read_text(encoding="utf-8") for path in rng.choices(paths, k=CODE)]
    return [benign(_excerpt(text, rng), "code") for text in texts if text.strip()]


def _schemas(data: Path, rng: random.Random) -> list[Example]:
    found = [json.dumps(row["schema"]) for row in rows(data / "json_schema/maskbench_600.jsonl.gz")]
    return [benign(_excerpt(text, rng), "schemas") for text in rng.sample(found, SCHEMAS)]


def _excerpt(text: str, rng: random.Random) -> str:
    """Returns some lines' worth of a text."""
    characters = rng.choice((150, 300, 600))
    start = rng.randrange(max(1, len(text) - characters))
    return text[start : start + characters]
