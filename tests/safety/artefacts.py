"""Writes small classifiers for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from safety.encoder.architecture import Architecture

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?[]'-"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "bomb", "hi"]
LABELS = ("violence", "harmful", "injection")
TINY = Architecture(
    layers=2, hidden=24, heads=4, intermediate=48, vocabulary=len(VOCABULARY), max_tokens=40, norm_epsilon=1e-12
)


def config(architecture: Architecture = TINY, **changes: Any) -> dict[str, Any]:
    """A valid ``config.json``, with ``changes`` at its top."""
    kinds = {"harmful": "overall", "injection": "injection"}
    labels = [
        {
            "name": name,
            "kind": kinds.get(name, "category"),
            "calibration": {"scale": 1.0 + place, "offset": 0.1 * place},
            "thresholds": {"flag": 0.7, "review": 0.6, "block": 0.85},
        }
        for place, name in enumerate(LABELS)
    ]
    sizes = {
        "layers": architecture.layers,
        "hidden": architecture.hidden,
        "heads": architecture.heads,
        "intermediate": architecture.intermediate,
        "layer_norm_eps": architecture.norm_epsilon,
        "positions": architecture.max_tokens,
        "vocabulary": architecture.vocabulary,
    }
    window = {"tokens": min(30, architecture.max_tokens - 2), "stride": 20}
    return {"version": "tiny-1", "architecture": sizes, "window": window, "labels": labels, **changes}


def write_classifier(directory: Path, architecture: Architecture = TINY, **changes: Any) -> Path:
    """Writes a classifier with random weights to ``directory``. Returns it."""
    random = np.random.default_rng(3)
    tensors: dict[str, NDArray[Any]] = {
        name: (random.standard_normal(shape) * 0.2 + name.endswith("LayerNorm.weight")).astype(np.float32)
        for name, shape in architecture.shapes()
    }
    hidden = architecture.hidden
    tensors["embeddings.token_type_embeddings.weight"] = random.standard_normal((2, hidden)).astype(np.float32) * 0.2
    tensors["head.weight"] = random.standard_normal((len(LABELS), 2 * hidden)).astype(np.float32)
    tensors["head.bias"] = random.standard_normal(len(LABELS)).astype(np.float32)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config(architecture, **changes)), encoding="utf-8")
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return directory
