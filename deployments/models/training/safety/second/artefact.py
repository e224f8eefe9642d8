"""The files of the second opinion, as deployments/models/safety/FORMAT.md describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from deployments.models.training.safety.artefact import quantised, write_config
from deployments.models.training.safety.second.cascade import GATE, Calibration, Mixed
from deployments.models.training.safety.second.sequences import Sequences
from deployments.models.training.safety.second.upper import Upper
from safety.classifier.artefact import Artefact, SecondOpinion

FILE: Final = "second_opinion.safetensors"
MAX_TOKENS: Final = 64
"""Windows of as many tokens or more are not asked about: in a longer one an attack is a small part of the mean, so that
the second model finds less than the first."""


def write_weights(model: Upper, folder: Path) -> None:
    """Writes the tuned layers, the norm and the head: matrices in int8 by row."""
    save_file(quantised(model.state_dict()), folder / FILE)


def second_opinion(base: str, first: int, last: int, sequences: Sequences) -> SecondOpinion:
    """Returns the description of the layers below ``last`` of ``base``, tuned from ``first`` on."""
    return SecondOpinion(
        file=FILE,
        base=base,
        layers=last,
        tuned_from=first,
        prefix=tuple(sequences.prefix),
        end=sequences.end,
        max_tokens=MAX_TOKENS,
        gate=GATE,
    )


def calibration(artefact: Artefact) -> Calibration:
    """Returns that of the first model alone."""
    return {label.name: (label.scale, label.offset) for label in artefact.labels}


def describe(folder: Path, version: str, second: SecondOpinion, mixed: Mixed) -> None:
    """Adds the second opinion to config.json in ``folder``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_config(described(config, version, second, mixed), folder)


def described(config: Mapping[str, Any], version: str, second: SecondOpinion, mixed: Mixed) -> dict[str, Any]:
    """Returns ``config`` with the second opinion, in place of one that was there."""
    labels = [{**label, "second_opinion": weights(mixed[label["name"]])} for label in config["labels"]]
    return {**config, "version": version, "second_opinion": asdict(second), "labels": labels}


def weights(mixed: tuple[float, float, float]) -> dict[str, float]:
    first, second, offset = (round(value, 4) for value in mixed)
    return {"first": first, "second": second, "offset": offset}
