"""``PairModelArtefact``: the description of a pair model in its ``config.json``.

deployments/models/cache_pairs/FORMAT.md describes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from safety.encoder.architecture import Architecture


class ArtefactError(ValueError):
    """The files of a pair model are malformed or do not fit together."""


@dataclass(frozen=True, slots=True)
class Combination:
    """A logistic regression: two questions ask for the same with the probability
    ``sigmoid(pair * logit + cosine * cosine of the embeddings + offset)``."""

    pair: float
    cosine: float
    offset: float


@dataclass(frozen=True, slots=True)
class PairModelArtefact:
    """A pair model without its weights. ``version`` is ``name@version`` of model and combination. ``max_tokens`` is the
    maximum number of tokens of a pair, special tokens included."""

    version: str
    architecture: Architecture
    max_tokens: int
    combination: Combination


def read_artefact(directory: Path) -> PairModelArtefact:
    """Reads ``config.json`` in ``directory``. Raises OSError if it cannot be read, and ArtefactError for a member that
    is missing or wrong."""
    path = directory / "config.json"
    text = path.read_text(encoding="utf-8")
    try:
        return _artefact(_Config.model_validate_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ArtefactError(f"{path}: {place}: {first['msg']}") from error
    except ValueError as error:
        raise ArtefactError(f"{path}: {error}") from error


class _Architecture(BaseModel):
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    heads: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    layer_norm_eps: float = Field(gt=0)
    positions: int = Field(ge=1)
    vocabulary: int = Field(ge=1)


class _Combination(BaseModel):
    pair: float = Field(gt=0, allow_inf_nan=False)
    cosine: float = Field(ge=0, allow_inf_nan=False)
    offset: float = Field(allow_inf_nan=False)


class _Config(BaseModel):
    """The file. Unknown keys are ignored: newer files may say more."""

    version: str = Field(min_length=1)
    architecture: _Architecture
    max_tokens: int = Field(ge=5)
    combination: _Combination


def _artefact(config: _Config) -> PairModelArtefact:
    """Raises ValueError for a pair that is longer than the encoder reads."""
    shape = config.architecture
    if config.max_tokens > shape.positions:
        raise ValueError("max_tokens exceeds architecture.positions")
    return PairModelArtefact(
        version=config.version,
        architecture=Architecture(
            layers=shape.layers,
            hidden=shape.hidden,
            heads=shape.heads,
            intermediate=shape.intermediate,
            vocabulary=shape.vocabulary,
            max_tokens=shape.positions,
            norm_epsilon=shape.layer_norm_eps,
        ),
        max_tokens=config.max_tokens,
        combination=Combination(config.combination.pair, config.combination.cosine, config.combination.offset),
    )
