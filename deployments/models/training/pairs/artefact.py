"""The files that are shipped, as deployments/models/cache_pairs/FORMAT.md describes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from cluster.pair_scorer.pair_model_files import Combination
from deployments.models.training.safety import model as shape
from deployments.models.training.safety.artefact import SCALE
from deployments.models.training.safety.model import Classifier
from router.cache.calibration_table import CalibrationTable

READ_TOKENS: Final = 128
"""Of a pair, special tokens included, that the service reads. Training cuts at fewer, and most pairs have fewer."""

UNTRAINED: Final = Combination(1.0, 0.0, 0.0)
MAX_EMBEDDING, MAX_WEIGHT = 127, 63


def quantised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors with every matrix but the head's, and the embedding of token types, in integers by row.

    Those of the layers take 7 bits, as they are computed with: cut once, from the weights that were trained.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.dim() == 2 and not name.startswith("head") and "token_type" not in name:
            largest = MAX_EMBEDDING if name.startswith("embeddings") else MAX_WEIGHT
            scale = value.abs().amax(dim=1).clamp(min=1e-8) / largest
            out[name] = (value / scale[:, None]).round().to(torch.int8)
            out[name + SCALE] = scale.contiguous()
        else:
            out[name] = value.clone()
    return out


def write_weights(model: Classifier, vocabulary: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(quantised(model.state_dict()), folder / "model.safetensors")
    shutil.copyfile(vocabulary, folder / "vocab.txt")


def write_config(version: str, combination: Combination, folder: Path) -> None:
    """Writes config.json. Its version names the model and the combination, and a threshold holds for one version."""
    described: dict[str, Any] = {
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
        "max_tokens": READ_TOKENS,
        "combination": {
            "pair": round(combination.pair, 4),
            "cosine": round(combination.cosine, 4),
            "offset": round(combination.offset, 4),
        },
    }
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def write_table(table: CalibrationTable, folder: Path) -> None:
    """Writes calibration.json, a row of the table in each line."""
    head = json.dumps({"version": table.version, "different": table.different, "same": table.same})
    rows = ",\n".join(json.dumps(list(row)) for row in table.rows)
    (folder / "calibration.json").write_text(f'{head[:-1]}, "rows": [\n{rows}\n]}}\n', encoding="utf-8")
