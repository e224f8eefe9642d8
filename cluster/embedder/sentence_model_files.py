"""``SentenceArtefact``: the files of a sentence embedding model on this machine, without its weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cluster.embedder.config import EmbedderConfig
from cluster.embedder.sentence_settings import SentenceSettings, read_settings
from engine.model.location import PACKAGE_SCHEME, check_digest, locate

VERSION_DIGITS = 12  # hexadecimal


@dataclass(frozen=True, slots=True)
class SentenceArtefact:
    """A sentence model on this machine: its files and its settings. Its weights are not loaded.

    ``directory`` has the model's files; ``vocabulary`` is the file of the word pieces. ``model`` is ``name@version``,
    where the version is a digest of all that decides the vectors: weights, vocabulary, settings and precision.
    """

    directory: Path
    vocabulary: Path
    settings: SentenceSettings
    model: str


def read_artefact(config: EmbedderConfig) -> SentenceArtefact:
    """Finds the model of ``config`` and reads its settings. Of the weights only the digest is computed.

    Raises ModelNotFoundError if it is not on this machine, OSError for a missing file, ModelDigestError for weights
    with another digest than ``config.sha256``, and UnsupportedSentenceModelError for a model that ``SentenceEncoder``
    does not run.
    """
    directory = locate(f"{config.model}/modules.json").parent
    settings = read_settings(directory)
    weights = directory / "model.safetensors"
    if config.sha256 is not None:
        check_digest([weights], config.sha256)
    vocabulary = directory / "vocab.txt"
    if not vocabulary.exists():  # transformers 5 writes this file alone
        vocabulary = directory / "tokenizer.json"
    digests = [_digest(path) for path in (weights, vocabulary, directory / "config.json")]
    described = [*digests, settings.pooling, str(settings.max_tokens), config.precision]
    version = hashlib.sha256(" ".join(described).encode()).hexdigest()[:VERSION_DIGITS]
    name = config.name or Path(config.model.removeprefix(PACKAGE_SCHEME)).name
    return SentenceArtefact(directory, vocabulary, settings, f"{name}@{version}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
