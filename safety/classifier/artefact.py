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
class Blend:
    """How a label's logits of two models make one probability: ``sigmoid(first * logit of the first + second * logit of
    the second + offset)``."""

    first: float
    second: float
    offset: float


@dataclass(frozen=True, slots=True)
class Label:
    """One output of the classifier. Its probability is ``sigmoid(scale * logit + offset)``, and as ``blend`` says where
    a second model was asked. A text is flagged if this probability is at least ``flag``."""

    name: str
    kind: str
    scale: float
    offset: float
    flag: float
    blend: Blend | None = None


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """A larger model that is asked about a window if the first gives a label at least the probability ``gate``.

    It is the decoder ``base``: its first ``layers`` layers, of which those from ``tuned_from`` on are in ``file``, as
    are its last norm and its head. It reads the ids ``prefix``, at most ``max_tokens`` tokens of text, and ``end``.
    """

    file: str
    base: str
    layers: int
    tuned_from: int
    prefix: tuple[int, ...]
    end: int
    max_tokens: int
    gate: float


@dataclass(frozen=True, slots=True)
class Artefact:
    """A classifier without its weights. ``version`` names model and calibration. ``labels`` are in the order of the
    head's rows; one of the labels scores injections. Where there is a ``second_opinion``, each label has a blend."""

    version: str
    architecture: Architecture
    window: WindowSize
    labels: tuple[Label, ...]
    second_opinion: SecondOpinion | None = None

    def version_with(self, second: bool) -> str:
        """Returns the version of the scores: without the second opinion that the files describe they are others.
        ``second``: it is asked."""
        return self.version if second or self.second_opinion is None else f"{self.version}-alone"

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


class _Blend(BaseModel):
    first: float = Field(ge=0, allow_inf_nan=False)
    second: float = Field(ge=0, allow_inf_nan=False)
    offset: float = Field(allow_inf_nan=False)


class _Thresholds(BaseModel):
    flag: Probability


class _Label(BaseModel):
    name: str = Field(min_length=1)
    kind: Literal["category", "overall", "injection"]
    calibration: _Calibration
    thresholds: _Thresholds
    second_opinion: _Blend | None = None


class _SecondOpinion(BaseModel):
    file: str = Field(pattern=r"^[\w-][\w.-]*\.safetensors$")
    base: str = Field(min_length=1)
    layers: int = Field(ge=1)
    tuned_from: int = Field(ge=0)
    prefix: tuple[Annotated[int, Field(ge=0)], ...]
    end: int = Field(ge=0)
    max_tokens: int = Field(ge=1)
    gate: Probability


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
    second_opinion: _SecondOpinion | None = None


def _artefact(config: _Config) -> Artefact:
    """Raises ValueError for labels and windows that make no classifier."""
    _check(config)
    shape, second = config.architecture, config.second_opinion
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
        labels=tuple(map(_label, config.labels)),
        second_opinion=None if second is None else SecondOpinion(**second.model_dump()),
    )


def _label(label: _Label) -> Label:
    blend = None if label.second_opinion is None else Blend(**label.second_opinion.model_dump())
    return Label(
        label.name, label.kind, label.calibration.scale, label.calibration.offset, label.thresholds.flag, blend
    )


def _check(config: _Config) -> None:
    """Raises ValueError for labels, windows and a second opinion that do not fit each other."""
    names = [label.name for label in config.labels]
    if len(set(names)) < len(names):
        raise ValueError("labels: two have one name")
    if sum(label.kind == INJECTION for label in config.labels) != 1:
        raise ValueError("labels: exactly one has the kind injection")
    if config.window.tokens + 2 > config.architecture.positions:
        raise ValueError("window.tokens: with [CLS] and [SEP], a window exceeds architecture.positions")
    second = config.second_opinion
    if any((label.second_opinion is None) != (second is None) for label in config.labels):
        raise ValueError("labels: each has second_opinion, or none has and the file has none")
    if second is not None and second.tuned_from > second.layers:
        raise ValueError("second_opinion.tuned_from: it exceeds second_opinion.layers")


def categories(artefact: Artefact) -> Mapping[str, int]:
    """Returns the index of each label by its name, without the label for injections."""
    return {label.name: place for place, label in enumerate(artefact.labels) if label.kind != INJECTION}
