"""Vectors are those of torch and transformers for the same model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizer

from cluster.embedder.sentence_encoder import SentenceEncoder
from cluster.embedder.sentence_model_files import read_artefact
from load_tests.embedding.parity import parity, sample_texts
from safety.encoder.architecture import UnsupportedEncoderError
from safety.encoder.encoder import Encoder
from safety.encoder.precision import Precision
from safety.encoder.word_pieces import WordPieces
from tests.embedder.models import PACKAGED, embedder_config, packaged_directory, pooling, write_model


@pytest.mark.parametrize(("precision", "mean"), [(Precision.FLOAT32, 0.99999), (Precision.INT8, 0.99)])
def test_the_packaged_model_is_near_to_torch(precision: Precision, mean: float) -> None:
    packaged_directory()
    config = embedder_config(PACKAGED, precision=precision)

    assert parity(SentenceEncoder(read_artefact(config), precision), sample_texts(12)).mean > mean


def test_the_first_token_is_pooled_where_the_settings_say_so(tmp_path: Path) -> None:
    """A model with [CLS] pooling has another vector than the mean, and the one of a text's first state."""
    models = []
    for mode in ("mean_tokens", "cls_token"):
        config = embedder_config(write_model(tmp_path, **{"1_Pooling__config": pooling(mode)}))
        models.append(SentenceEncoder(read_artefact(config), Precision.FLOAT32))
    texts = ["the rain is lovely", "bomb", "hi the bomb"]

    assert parity(models[0], texts).least > 0.9999
    assert parity(models[1], texts).mean < 0.99
    states = Encoder.load(tmp_path, Precision.FLOAT32).encode([models[1].tokens(text) for text in texts]).first()
    np.testing.assert_allclose(
        models[1].vectors([models[1].tokens(text) for text in texts]),
        states / np.linalg.norm(states, axis=1, keepdims=True),
        atol=1e-5,
    )


def test_the_vocabulary_may_be_that_of_a_tokenizer_json(tmp_path: Path) -> None:
    """transformers 5 writes no vocab.txt."""
    write_model(tmp_path)
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    texts = ["The rain is lovely!", "hi [SEP] bomb", ""]
    by_lines = WordPieces(tmp_path / "vocab.txt")
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink()

    artefact = read_artefact(embedder_config(tmp_path))
    model = SentenceEncoder(artefact, Precision.INT8)
    assert artefact.vocabulary.name == "tokenizer.json"
    assert [model.tokens(text)[1:-1] for text in texts] == [by_lines(text) for text in texts]

    document = json.loads(artefact.vocabulary.read_text(encoding="utf-8"))
    document["normalizer"]["lowercase"] = False
    artefact.vocabulary.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UnsupportedEncoderError, match=r"normalizer\.lowercase must be True"):
        SentenceEncoder(artefact, Precision.INT8)
