"""The files that are shipped, as FORMAT.md describes them: int8 weights by row, and config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deployments.models.training.safety import model as shape
from deployments.models.training.safety.labels import LABELS, kind_of
from deployments.models.training.safety.model import Classifier
from deployments.models.training.safety.windows import STRIDE, WINDOW

SCALE = ".scale"


def quantised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors with every matrix but the head's, and the embedding of token types, in int8 by row."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.dim() == 2 and not name.startswith("head") and "token_type" not in name:
            scale = value.abs().amax(dim=1).clamp(min=1e-8) / 127
            out[name] = (value / scale[:, None]).round().to(torch.int8)
            out[name + SCALE] = scale.contiguous()
        else:
            out[name] = value.clone()
    return out


def dequantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the float32 weights that the tensors of an artefact stand for."""
    return {
        name: value.float() * tensors[name + SCALE][:, None] if value.dtype == torch.int8 else value
        for name, value in tensors.items()
        if not name.endswith(SCALE)
    }


def averaged(artefacts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the mean of the float32 weights of several artefacts."""
    states = [dequantised(tensors) for tensors in artefacts]
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def load(folder: Path) -> Classifier:
    """Reads ``model.safetensors`` in ``folder``. Raises OSError, and RuntimeError if tensors are missing."""
    classifier = Classifier()
    classifier.load_state_dict(dequantised(load_file(folder / "model.safetensors")))
    return classifier.eval()


def write_weights(classifier: Classifier, folder: Path) -> None:
    save_file(quantised(classifier.state_dict()), folder / "model.safetensors")


def config(
    version: str, calibration: Mapping[str, tuple[float, float]], thresholds: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Returns config.json. ``calibration`` has scale and offset by label."""
    return {
        "version": version,
        "architecture": {
            "layers": shape.LAYERS,
            "hidden": shape.HIDDEN,
            "heads": shape.HEADS,
            "intermediate": shape.INTERMEDIATE,
            "layer_norm_eps": shape.EPSILON,
            "positions": shape.POSITIONS,
            "vocabulary": shape.VOCABULARY,
        },
        "window": {"tokens": WINDOW, "stride": STRIDE},
        "labels": [
            {
                "name": label,
                "kind": kind_of(label),
                "calibration": {"scale": round(calibration[label][0], 4), "offset": round(calibration[label][1], 4)},
                "thresholds": {name: round(value, 4) for name, value in thresholds[label].items()},
            }
            for label in LABELS
        ],
    }


def write_config(described: Mapping[str, Any], folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
