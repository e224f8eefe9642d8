"""``Scripted``: a classifier's model in place of a network; and the fixture ``scripted``, which needs ``directory``."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from safety.classifier.artefact import Artefact, read_artefact
from safety.classifier.windows import Span
from tests.safety.artefacts import LABELS, write_classifier


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier"))


class Scripted:
    """A model whose windows are the words of a text, and whose scores are its first letter's. It waits for ``go``."""

    def __init__(self, artefact: Artefact) -> None:
        self.artefact = artefact
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    async def computes(self) -> None:
        """Waits until a batch is being computed."""
        assert await asyncio.to_thread(self.begun.wait, 10)

    def windows(self, text: str) -> list[list[int]]:
        return [list(word.encode()) for word in text.split() or [" "]]

    def spans(self, text: str) -> list[Span]:
        return [word.span() for word in re.finditer(r"\S+", text)] or [(0, len(text))]

    def logits(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append([bytes(tokens).decode() for tokens in batch])
        self.begun.set()
        assert self.go.wait(10)
        if any(tokens[0] == ord("!") for tokens in batch):
            raise RuntimeError("the model broke")
        rows = [np.nan if tokens[0] == ord("?") else tokens[0] / 256 for tokens in batch]
        return uncalibrated(np.repeat(np.array(rows)[:, None], len(LABELS), axis=1), self.artefact)


def uncalibrated(rows: NDArray[np.float64], artefact: Artefact) -> NDArray[np.float32]:
    """The outputs of the head, [windows, labels], that mean the probabilities ``rows``."""
    scale, offset = zip(*((label.scale, label.offset) for label in artefact.labels), strict=True)
    logits: NDArray[np.float64] = (np.log(rows / (1 - rows)) - np.array(offset)) / np.array(scale)
    return logits.astype(np.float32)


@pytest.fixture
def scripted(directory: Path) -> Scripted:
    return Scripted(read_artefact(directory))
