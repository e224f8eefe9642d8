"""Vectors are those of torch and transformers for the same model."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.embedder.artefact import read_artefact
from cluster.embedder.sentence_encoder import SentenceEncoder
from load_tests.embedding.parity import parity
from safety.encoder.precision import Precision
from tests.embedder.models import PACKAGED, embedder_config, packaged_directory, pooling, write_model


@pytest.mark.parametrize(("precision", "least"), [(Precision.FLOAT32, 0.9999), (Precision.INT8, 0.98)])
def test_the_packaged_model_is_near_to_torch(precision: Precision, least: float) -> None:
    packaged_directory()
    config = embedder_config(PACKAGED, precision=precision)

    assert parity(SentenceEncoder(read_artefact(config), precision), 12).least > least


def test_the_first_token_is_pooled_where_the_settings_say_so(tmp_path: Path) -> None:
    """A model with [CLS] pooling has another vector than the mean, and the one of a text's first state."""
    models = []
    for mode in ("mean_tokens", "cls_token"):
        config = embedder_config(write_model(tmp_path, **{"1_Pooling__config": pooling(mode)}))
        models.append(SentenceEncoder(read_artefact(config), Precision.FLOAT32))
    mean, first = (model.vectors([model.tokens("the rain is lovely")])[0] for model in models)

    assert mean @ first < 0.99
    assert parity(models[0], 6).least > 0.9999
    assert parity(models[1], 6).least < 0.99
