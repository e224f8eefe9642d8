"""How near the embedder's vectors are to those of torch and transformers, for the same model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.embedder.sentence_encoder import SentenceEncoder
from load_tests.safety.latency import text_of

SENTENCES = (
    "How do I reset my password?",
    "Ünïcödé and ideographs: 我们 ありがとう",
    "The committee did not approve the budget of $1,250.75 on 3 March 2024.",
    "def f(x):\n    return [y ** 2 for y in x if y % 2]",
    "[SEP] is a word here, and so is [CLS].",
    "!",
)
MAX_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Parity:
    """Cosines of vectors with torch's in float32."""

    texts: int
    mean: float
    least: float


def sample_texts(count: int) -> list[str]:
    """Returns SENTENCES, and random words of 3 to MAX_TOKENS tokens up to ``count`` texts."""
    rng = random.Random(1)
    return [*SENTENCES, *(text_of(rng.randint(3, MAX_TOKENS), rng) for _ in range(count - len(SENTENCES)))]


def parity(model: SentenceEncoder, texts: Sequence[str]) -> Parity:
    """Compares the vectors of ``texts``."""
    sequences = [model.tokens(text) for text in texts]
    ours = np.concatenate([model.vectors([sequence]) for sequence in sequences])
    cosines = (ours * reference(model.artefact.directory, sequences)).sum(axis=1)
    return Parity(len(sequences), round(float(cosines.mean()), 6), round(float(cosines.min()), 6))


def reference(directory: Path, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Returns the mean-pooled vectors of length 1 that torch computes in float32, [sequences, dimensions]."""
    # Imported here: torch takes 3 s and three times the memory of what is measured.
    import torch
    from transformers import BertModel

    network = BertModel.from_pretrained(directory, add_pooling_layer=False).eval()
    with torch.inference_mode():
        means = [network(torch.tensor([list(each)])).last_hidden_state[0].mean(0) for each in sequences]
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(torch.stack(means)).numpy()
    return vectors
