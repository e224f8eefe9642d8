"""``settings``: a service whose classifier and embedder are tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.config import MantaConfig
from tests.cluster.graph import dev_config
from tests.embedder.models import write_model
from tests.safety.artefacts import write_classifier


def settings(directory: Path, **changes: Any) -> MantaConfig:
    """dev.yaml with small models in place of the shipped ones."""
    arguments = dev_config()
    classifier = directory / "classifier"
    classifier.mkdir()
    arguments["safety"]["classifier"] = {"model": str(write_classifier(classifier))}
    embedder = directory / "embedder"
    embedder.mkdir()
    arguments["embedder"] = {"model": str(write_model(embedder))}
    arguments["state"] = {"url": "redis://127.0.0.1:1", "journal": str(directory)}
    return MantaConfig.model_validate(arguments | changes)
