"""``CalibrationTable``: the scores of held-out pairs of questions, as the files of the pair scorer (the second stage of
the semantic cache) have them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

DECIMALS = 6
"""Of a score in a table: a threshold lies one unit of the last above the false hit that it keeps out."""


class CalibrationTableError(ValueError):
    """The file is no calibration table."""


class Row(NamedTuple):
    """A row of the table: at the threshold ``score``, ``false_hits`` pairs of different questions and ``true_hits``
    pairs of same ones are hits."""

    score: float
    false_hits: int
    true_hits: int


class CalibrationTable(BaseModel):
    """The scores of labelled pairs of questions under a scorer's ``version``. ``different`` pairs have different
    meanings, ``same`` pairs have the same.

    ``rows``: one for each score of a different pair that no guard refused, from the highest down. A pair that the guard
    refuses is in ``different`` or in ``same``, and in no row: it is never a hit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(min_length=1)
    different: int = Field(ge=1)
    same: int = Field(ge=1)
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_monotone(self) -> CalibrationTable:
        for above, below in zip(self.rows, self.rows[1:], strict=False):
            if not (
                above.score > below.score and above.false_hits < below.false_hits and above.true_hits <= below.true_hits
            ):
                raise ValueError(f"rows: scores must fall and counts rise, not {list(above)}, {list(below)}")
        last = self.rows[-1]
        if last.false_hits > self.different or last.true_hits > self.same:
            raise ValueError("rows: more hits than pairs")
        return self

    @classmethod
    def read(cls, path: Path) -> CalibrationTable:
        """Reads a table. Raises OSError if it cannot be read, and CalibrationTableError for a member that is missing or
        wrong."""
        text = path.read_text(encoding="utf-8")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise CalibrationTableError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def recall(self, threshold: float) -> float:
        """Returns the share of same pairs, 0 to 1, that are hits at ``threshold``. It is a lower bound: the last row
        above the threshold counts."""
        return max((row.true_hits for row in self.rows if row.score >= threshold), default=0) / self.same


class Scored(NamedTuple):
    """A labelled pair and its score, 0 to 1; None: the guard refuses the pair."""

    score: float | None
    same: bool


def tabulated(version: str, pairs: Iterable[Scored], max_false_hit_rate: float = 0.25) -> CalibrationTable:
    """Returns the table of labelled pairs, down to ``max_false_hit_rate``.

    ``version`` is that of the pair scorer. ``max_false_hit_rate``, 0 to 1, ends the table: its last row is the first at
    which the rate of false hits reaches it. Raises ValueError unless there are pairs of both kinds, and one of
    different questions that the guard does not refuse.
    """
    listed = list(pairs)
    same = sum(pair.same for pair in listed)
    different = len(listed) - same
    scores = sorted(
        ((round(pair.score, DECIMALS), pair.same) for pair in listed if pair.score is not None), reverse=True
    )
    rows: list[Row] = []
    counts = [0, 0]
    for place, (score, label) in enumerate(scores):
        counts[label] += 1
        last_of_score = place + 1 == len(scores) or scores[place + 1][0] < score
        if last_of_score and counts[False] > (rows[-1].false_hits if rows else 0):
            rows.append(Row(score, counts[False], counts[True]))
            if counts[False] >= max_false_hit_rate * different:
                break
    return CalibrationTable(version=version, different=different, same=same, rows=tuple(rows))
