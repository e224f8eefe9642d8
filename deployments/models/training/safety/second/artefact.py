"""The files of the second opinion, as deployments/models/safety/FORMAT.md describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from deployments.models.training.safety.artefact import quantised, write_config
from deployments.models.training.safety.second.cascade import GATE, Calibration, Mixed
from deployments.models.training.safety.second.opinions import MAX_TOKENS
from deployments.models.training.safety.second.sequences import Sequences
from deployments.models.training.safety.second.upper import Upper

FILE: Final = "second_opinion.safetensors"


def write_weights(model: Upper, folder: Path) -> None:
    """Writes the tuned layers, the norm and the head: matrices in int8 by row."""
    save_file(quantised(model.state_dict()), folder / FILE)


def calibration(folder: Path) -> Calibration:
    """Returns that of the first model. Raises OSError."""
    labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["labels"]
    return {label["name"]: (label["calibration"]["scale"], label["calibration"]["offset"]) for label in labels}


def describe(
    folder: Path, version: str, base: str, layers: tuple[int, int], sequences: Sequences, mixed: Mixed
) -> None:
    """Adds the second opinion to config.json in ``folder``. ``layers``: the first tuned one, and how many there are in
    all."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_config(described(config, version, base, layers, sequences, mixed), folder)


def described(
    config: Mapping[str, Any], version: str, base: str, layers: tuple[int, int], sequences: Sequences, mixed: Mixed
) -> dict[str, Any]:
    """Returns ``config`` with the second opinion, in place of one that was there."""
    opinion = {
        "file": FILE,
        "base": base,
        "layers": layers[1],
        "tuned_from": layers[0],
        "prefix": sequences.prefix,
        "end": sequences.end,
        "max_tokens": MAX_TOKENS,
        "gate": GATE,
    }
    labels = [{**label, "second_opinion": weights(mixed[label["name"]])} for label in config["labels"]]
    return {**config, "version": version, "second_opinion": opinion, "labels": labels}


def weights(mixed: tuple[float, float, float]) -> dict[str, float]:
    first, second, offset = (round(value, 4) for value in mixed)
    return {"first": first, "second": second, "offset": offset}
