"""Trains the second model of a fold: the upper layers of the second opinion, from the weights of an artefact on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from safetensors.torch import load_file

from deployments.models.training.safety.artefact import dequantised
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.second import artefact
from deployments.models.training.safety.second.loop import Recipe, train
from deployments.models.training.safety.second.sequences import Sequences
from deployments.models.training.safety.second.states import States, compute
from deployments.models.training.safety.second.trunk import Trunk
from deployments.models.training.safety.second.upper import Upper
from safety.classifier.artefact import SecondOpinion
from safety.decoder.gguf_file import GGUFFile

LEARNING_RATE: Final = 6e-5
HEAD_LEARNING_RATE: Final = 5e-4
STATES: Final = "states-{}.pt"
"""The file of the states. Its name has a checksum of the texts, so that those of other texts are never read."""


def train_second(
    examples: Sequence[Example],
    copies: Mapping[str, int],
    start: Path,
    base: Path,
    described: SecondOpinion,
    folder: Path,
    minutes: float,
    seed: int,
) -> None:
    """Continues the training of the artefact in ``start`` on ``examples``, and writes the weights to ``folder``.

    ``minutes`` are processor time. ``copies``: how often a pass reads a text of a source, where it is not once. The
    states of the texts are computed once, and kept in ``folder``. Raises OSError, and UnsupportedDecoderError for
    another ``base`` than SmolLM2.
    """
    stored = folder / STATES.format(checksum(examples))
    if not stored.exists():
        states_of(examples, base, described.tuned_from).save(stored)
    upper = load(start / artefact.FILE, base, described)
    recipe = Recipe(rounds=((minutes, LEARNING_RATE),), head_learning_rate=HEAD_LEARNING_RATE, seed=seed)
    train(upper, repeated(States.load(stored), examples, copies), examples, recipe)
    artefact.write_weights(upper, folder)


def checksum(examples: Sequence[Example]) -> str:
    """Returns a checksum of the texts and what is known of them, which decides what windows are trained on."""
    found = hashlib.sha256()
    for each in examples:
        found.update(json.dumps([each.text, sorted(each.known.items())]).encode())
    return found.hexdigest()[:16]


def states_of(examples: Sequence[Example], base: Path, trunk: int) -> States:
    """Returns what the first ``trunk`` layers of ``base`` make of ``examples``."""
    sequences = Sequences(GGUFFile(base))
    windows = [(number, window) for number, each in enumerate(examples) for window in sequences.training_windows(each)]
    return compute(Trunk(base, trunk), windows, sequences.prefix, sequences.end)


def repeated(states: States, examples: Sequence[Example], copies: Mapping[str, int]) -> States:
    """Returns ``states`` with the windows of each text as often as its source has ``copies``."""
    return replace(
        states,
        windows=tuple(window for window in states.windows for _ in range(copies.get(examples[window.text].source, 1))),
    )


def load(path: Path, base: Path, described: SecondOpinion) -> Upper:
    """Returns the layers and the head that an artefact has."""
    upper = Upper(GGUFFile(base), described.tuned_from, described.layers)
    upper.load_state_dict(dequantised(load_file(path)))
    return upper
