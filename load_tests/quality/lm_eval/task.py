"""The held-out set as a task of lm-evaluation-harness: the same items and the same rule, asked and counted by others.

Runs in lm_eval's environment, not in ours: of this repository it uses what needs the standard library alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Neither is installed beside us: `lm_eval` brings both.
from datasets import Dataset  # type: ignore[import-not-found]
from lm_eval.api.task import ConfigurableTask  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))  # lm_eval loads this file by its path, and knows nothing of the repository around it

from deployments.models.training.curriculum.task import is_right  # noqa: E402

HELD_OUT = ROOT / "deployments" / "models" / "training" / "heldout.jsonl"


class Manta(ConfigurableTask):
    """Sends each item's conversation as it is. lm_eval's own way knows one question and its examples, no turns."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def fewshot_context(
        self, doc: dict[str, Any], *_: Any, chat_template: Callable[..., Any] | None = None, **__: Any
    ) -> Any:
        """The conversation, in the form in which the model's adapter wants it. Raises ValueError without
        ``--apply_chat_template``."""
        if chat_template is None:
            raise ValueError("these are conversations: run lm_eval with --apply_chat_template")
        return chat_template(doc["messages"])


def load(path: str | None = None, **_: Any) -> dict[str, Any]:
    """The items as lm_eval's test split. Another file: ``--metadata '{"path": "..."}'``."""
    with Path(path or HELD_OUT).open(encoding="utf-8") as lines:
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Our exact match."""
    return {"exact_match": float(is_right(results[0], doc["answer"]))}
