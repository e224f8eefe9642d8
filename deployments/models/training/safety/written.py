"""Hand-written training texts: attacks, harmful requests and content, beside harmless texts of similar wording."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deployments.models.training.safety.example import Example, benign, marked
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL, INJECTION
from deployments.models.training.safety.sources import ABUSE, VIOLENT

SOURCE: Final = "written:"
FOLDER: Final = Path(__file__).with_name("training_texts")
COPIES: Final = 3
"""How often each text is in the mix. They are closer to what the model is asked than any data set."""

COVERT: Final = "covert"
"""The kind of documents with an order or a question that has nothing to do with them, for no reader in particular. A
user who pastes a document and asks something else writes the same, so they are not trained on: they wait for a label
that is read for documents only."""

KINDS: Final[dict[str, Callable[[str], Example]]] = {
    "harmless": lambda text: benign(text, "written:harmless"),
    "injection": lambda text: marked(text, "written:injection", {INJECTION: 0.97}, (*CATEGORIES, HARMFUL)),
    "harmful": lambda text: marked(text, "written:harmful", {HARMFUL: 0.95}, CATEGORIES),
    "harassment": lambda text: marked(text, "written:harassment", {"harassment": 0.8}, ABUSE),
    "hate": lambda text: marked(text, "written:hate", {"hate": 0.95}, (*ABUSE, *VIOLENT)),
    "threat": lambda text: marked(
        text, "written:threat", {"harassment/threatening": 0.9, "violence": 0.9}, (*ABUSE, *VIOLENT)
    ),
    "violence": lambda text: marked(text, "written:violence", {"violence": 0.9}, (*ABUSE, *VIOLENT)),
    "self-harm": lambda text: marked(
        text, "written:self-harm", {"self-harm": 0.95}, ("self-harm/intent", "self-harm/instructions")
    ),
    "sexual": lambda text: marked(text, "written:sexual", {"sexual": 0.85}, ABUSE),
}


def written() -> list[Example]:
    """Reads the texts, without covert instructions. Raises OSError."""
    lines = [line for path in sorted(FOLDER.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    return [KINDS[row["kind"]](row["text"]) for row in map(json.loads, lines) if row["kind"] != COVERT]


def is_written(example: Example) -> bool:
    """Returns whether ``example`` is one of these texts."""
    return example.source.startswith(SOURCE)


def copied(examples: Sequence[Example]) -> list[Example]:
    """Returns the examples with each written one as often as it is to be in the mix."""
    return [example for example in examples for _ in range(COPIES if is_written(example) else 1)]
