"""``loaded_classifier``: the classifier of a directory, with its second opinion where there is a base for it."""

from __future__ import annotations

from pathlib import Path

from safety.classifier.batching_classifier import BatchingClassifier
from safety.classifier.second_model import SecondModel
from safety.classifier.window_classifier import WindowClassifier
from safety.encoder.batch_runner import MAX_BATCH_TOKENS, OnBatches
from safety.encoder.precision import Precision


def loaded_classifier(
    directory: Path,
    base: Path | None = None,
    precision: Precision = Precision.INT8,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
    on_batches: OnBatches | None = None,
) -> BatchingClassifier:
    """Loads the files in ``directory``. ``base`` is the GGUF file of the decoder whose second opinion they describe;
    it is not read if they describe none. None: the first model judges alone.

    Raises OSError for a missing file, and ValueError for files that do not fit.
    """
    model = WindowClassifier(directory, precision)
    second = None
    if base is not None and model.artefact.second_opinion is not None:
        second = SecondModel(directory, model.artefact, base, precision)
    return BatchingClassifier(model, max_batch_tokens, on_batches=on_batches, second=second)
