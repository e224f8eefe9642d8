"""The mean of the weights of several artefacts (model soups, Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from safetensors.torch import load_file, save_file

from deployments.models.training.safety.artefact import averaged, quantised
from deployments.models.training.safety.second.artefact import FILE

FILES: Final = ("model.safetensors", FILE)
"""The weights of both models."""


def write_mean(folders: Sequence[Path], out: Path) -> None:
    """Writes the mean of both models in ``folders`` to ``out``. Raises OSError."""
    for name in FILES:
        save_file(quantised(averaged([load_file(folder / name) for folder in folders])), out / name)
