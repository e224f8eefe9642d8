"""Hand-written training texts: attacks and harmful requests, each with harmless texts of similar wording."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deployments.models.training.safety.example import Example, benign, marked
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL, INJECTION
from deployments.models.training.safety.sources import ABUSE

SOURCE: Final = "written:"
FILE: Final = Path(__file__).with_name("written.jsonl")
COPIES: Final = 3
"""How often each text is in the mix. They are few, and closer to what the model is asked than any data set."""
HARMLESS_COPIES: Final = 6
"""The same for harmless ones, since what more attacks in the mix cost is that harmless requests are flagged."""

KINDS: Final[dict[str, Callable[[str], Example]]] = {
    "harmless": lambda text: benign(text, "written:harmless"),
    "injection": lambda text: marked(text, "written:injection", {INJECTION: 0.97}, (*CATEGORIES, HARMFUL)),
    "harmful": lambda text: marked(text, "written:harmful", {HARMFUL: 0.95}, CATEGORIES),
    "harassment": lambda text: marked(text, "written:harassment", {"harassment": 0.8}, ABUSE),
}


def written() -> list[Example]:
    """Reads the texts. Raises OSError."""
    rows = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    return [KINDS[row["kind"]](row["text"]) for row in rows]


def copied(examples: Sequence[Example]) -> list[Example]:
    """Returns the examples with each written one as often as it is to be in the mix."""
    return [example for example in examples for _ in range(copies(example))]


def copies(example: Example) -> int:
    if not example.source.startswith(SOURCE):
        return 1
    return HARMLESS_COPIES if example.source == f"{SOURCE}harmless" else COPIES
