"""``Artefact``: the description of a classifier in its ``config.json``. deployments/models/safety/FORMAT.md describes
the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from safety.classifier.windows import WindowSize
from safety.encoder.architecture import Architecture

Probability = Annotated[float, Field(ge=0, le=1)]

INJECTION = "injection"
"""The kind of the label that scores prompt injections and jailbreaks."""


class ArtefactError(ValueError):
    """The files of a classifier are malformed or do not fit together."""


@dataclass(frozen=True, slots=True)
class Label:
    """One output of the classifier. Its probability is ``sigmoid(scale * logit + offset)``. A text is flagged if this
    probability is at least ``flag``."""

    name: str
    kind: str
    scale: float
    offset: float
    flag: float


@dataclass(frozen=True, slots=True)
class Artefact:
    """A classifier without its weights. ``version`` names model and calibration. ``labels`` are in the order of the
    head's rows; one of the labels scores injections."""

    version: str
    architecture: Architecture
    window: WindowSize
    labels: tuple[Label, ...]

    @property
    def injection(self) -> int:
        """The index of the label that scores injections."""
        return next(place for place, label in enumerate(self.labels) if label.kind == INJECTION)


def read_artefact(directory: Path) -> Artefact:
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


class _Calibration(BaseModel):
    scale: float = Field(gt=0, allow_inf_nan=False)
    offset: float = Field(allow_inf_nan=False)


class _Thresholds(BaseModel):
    flag: Probability


class _Label(BaseModel):
    name: str = Field(min_length=1)
    kind: Literal["category", "overall", "injection"]
    calibration: _Calibration
    thresholds: _Thresholds


class _Architecture(BaseModel):
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    heads: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    layer_norm_eps: float = Field(gt=0)
    positions: int = Field(ge=1)
    vocabulary: int = Field(ge=1)


class _Window(BaseModel):
    tokens: int = Field(ge=1)
    stride: int = Field(ge=1)


class _Config(BaseModel):
    """The file. Unknown keys are ignored: newer files may say more."""

    version: str = Field(min_length=1)
    architecture: _Architecture
    window: _Window
    labels: list[_Label] = Field(min_length=2)


def _artefact(config: _Config) -> Artefact:
    """Raises ValueError for labels and windows that make no classifier."""
    names = [label.name for label in config.labels]
    if len(set(names)) < len(names):
        raise ValueError("labels: two have one name")
    if sum(label.kind == INJECTION for label in config.labels) != 1:
        raise ValueError("labels: exactly one has the kind injection")
    if config.window.tokens + 2 > config.architecture.positions:
        raise ValueError("window.tokens: with [CLS] and [SEP], a window exceeds architecture.positions")
    shape = config.architecture
    return Artefact(
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
        window=WindowSize(config.window.tokens, config.window.stride),
        labels=tuple(
            Label(
                label.name,
                label.kind,
                label.calibration.scale,
                label.calibration.offset,
                label.thresholds.flag,
            )
            for label in config.labels
        ),
    )


def categories(artefact: Artefact) -> Mapping[str, int]:
    """Returns the index of each label by its name, without the label for injections."""
    return {label.name: place for place, label in enumerate(artefact.labels) if label.kind != INJECTION}
