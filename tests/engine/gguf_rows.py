"""Random rows of quantised GGUF tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.gguf.types import TensorType

FACTORS = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
}


def random_rows(kind: TensorType, rows: int, blocks: int, seed: int = 0) -> Tensor:
    """Random bytes, uint8 [rows, blocks x bytes], with factors that are finite and not tiny."""
    random = np.random.default_rng(seed)
    raw = random.integers(0, 256, (rows, blocks, kind.nbytes), dtype=np.uint8)
    for place in FACTORS.get(kind.name, (0,)):
        factors = random.uniform(0.001, 0.1, (rows, blocks, 1)) * random.choice([-1, 1], (rows, blocks, 1))
        raw[..., place : place + 2] = factors.astype(np.float16).view(np.uint8)
    return torch.from_numpy(raw.reshape(rows, -1))
