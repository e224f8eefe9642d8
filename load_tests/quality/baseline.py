"""The stored result that later runs are held against: ``deployments/models/quality.json``.

It belongs to one held-out file, known by its hash, and says of every item whether each tier had it right; so a later
run, of all items or of some, is compared on the very items it asked. Of a few items it also keeps the words: a change
too small to cost right answers still shows there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from load_tests.quality.item import HeldOut, stratified
from load_tests.quality.outcome import Outcome
from load_tests.quality.score import Score, score, scores

SAMPLE = 3  # items of each family and level whose replies are kept: what the smoke test has time to ask again


class BaselineTier(BaseModel):
    """One model's result. ``right`` has a mark per item, in the order of the file: 1 or 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overall: float  # share of right answers, 0 to 1
    families: dict[str, float]
    right: str
    replies: dict[str, str]


class Baseline(BaseModel):
    """Results of the tiers on one held-out file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heldout_sha256: str
    items: int
    max_tokens: int
    tiers: dict[str, BaselineTier]

    def marks(self, model: str, held_out: HeldOut) -> dict[str, bool]:
        """For each item's id whether ``model`` had it right. Raises KeyError for a model without a result."""
        pairs = zip(held_out.items, self.tiers[model].right, strict=True)
        return {item.id: mark == "1" for item, mark in pairs}

    def require(self, held_out: HeldOut, max_tokens: int) -> None:
        """Raises ValueError unless the baseline was measured on this very file with the same ``max_tokens``."""
        if self.heldout_sha256 != held_out.sha256 or self.items != len(held_out.items):
            raise ValueError(f"the baseline is of another held-out file than {held_out.path}; write it again")
        if self.max_tokens != max_tokens:
            raise ValueError(f"the baseline was measured with --max-tokens {self.max_tokens}, not {max_tokens}")


def read_baseline(path: Path) -> Baseline:
    """Raises OSError for a missing file and ValueError for one that is no baseline."""
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no baseline: {error}") from None


def make_baseline(
    outcomes: Mapping[str, Sequence[Outcome]], held_out: HeldOut, max_tokens: int, earlier: Baseline | None = None
) -> Baseline:
    """A baseline of complete runs, one per model. Tiers of ``earlier`` that did not run stay if it is of the same file.

    Raises ValueError for a run that lacks items or has requests that failed.
    """
    tiers: dict[str, BaselineTier] = {}
    if earlier is not None and (earlier.heldout_sha256, earlier.max_tokens) == (held_out.sha256, max_tokens):
        tiers |= earlier.tiers
    sample = {item.id for item in stratified(held_out.items, SAMPLE)}
    for model, mine in outcomes.items():
        if tuple(outcome.item for outcome in mine) != held_out.items:
            raise ValueError(f"{model} was not asked every item")
        if any(outcome.reply.problem is not None for outcome in mine):
            raise ValueError(f"requests of {model} failed: no baseline")
        tiers[model] = BaselineTier(
            overall=_share(score(mine)),
            families={name: _share(part) for name, part in scores(mine, lambda o: o.item.family).items()},
            right="".join("1" if outcome.right else "0" for outcome in mine),
            replies={o.item.id: o.reply.text for o in mine if o.item.id in sample},
        )
    return Baseline(heldout_sha256=held_out.sha256, items=len(held_out.items), max_tokens=max_tokens, tiers=tiers)


def dump(baseline: Baseline) -> str:
    """The file's text: stable, and with a line per reply, so that a change reads well in review."""
    content: dict[str, Any] = baseline.model_dump()
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _share(part: Score) -> float:
    return round(part.share, 4)
