"""What the files of a sentence-transformers directory say is kept, or refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.embedder.deployment import bind_embedder
from cluster.embedder.sentence_model_files import read_artefact
from cluster.embedder.sentence_settings import (
    Pooling,
    SentenceSettings,
    UnsupportedSentenceModelError,
    read_settings,
)
from engine.model.location import ModelDigestError, ModelNotFoundError
from safety.encoder.precision import Precision
from tests.embedder.models import PACKAGED, embedder_config, files, packaged_directory, pooling, write_model


def test_the_settings_are_read(tmp_path: Path) -> None:
    assert read_settings(write_model(tmp_path)) == SentenceSettings(Pooling.MEAN, 32, 24)


def test_other_forms_are_read(tmp_path: Path) -> None:
    """Without a normalisation, without a length of its own, with the first token's state, from another version."""
    modules = files()["modules"][:2]
    modules[1]["type"] = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    changes: dict[str, Any] = {
        "modules": modules,
        "1_Pooling__config": pooling("cls_token", include_prompt=True),
        "sentence_bert_config": {"max_seq_length": None},
        "config_sentence_transformers": {"similarity_fn_name": "cosine", "prompts": {"query": "q: "}},
    }
    assert read_settings(write_model(tmp_path, **changes)) == SentenceSettings(Pooling.CLS, 40, 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"modules": [*files()["modules"][:2], {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]},
            "Dense",
        ),
        ({"modules": files()["modules"][:1]}, "the modules must be"),
        ({"modules": [{"idx": 0}]}, "no type or no path"),
        ({"modules": {}}, "must be a JSON array"),
        ({"1_Pooling__config": pooling("max_tokens")}, "pooling_mode_max_tokens"),
        (
            {"1_Pooling__config": pooling(pooling_mode_cls_token=True)},
            "pooling_mode_cls_token, pooling_mode_mean_tokens",
        ),
        ({"1_Pooling__config": pooling("none")}, "not none"),
        ({"1_Pooling__config": pooling(pooling_mode_lasttoken=True)}, "pooling_mode_lasttoken"),
        ({"1_Pooling__config": pooling(word_embedding_dimension=48)}, "other dimensions than hidden_size"),
        ({"sentence_bert_config": {"max_seq_length": 512}}, "max_seq_length: 512"),
        ({"sentence_bert_config": {"max_seq_length": "32"}}, "max_seq_length: 32"),
        ({"tokenizer_config": {"do_lower_case": False}}, "do_lower_case must be true, null, not false"),
        ({"tokenizer_config": {"tokenizer_class": "XLMRobertaTokenizer"}}, "XLMRobertaTokenizer"),
        ({"tokenizer_config": {"strip_accents": False}}, "strip_accents"),
        ({"config_sentence_transformers": {"similarity_fn_name": "dot"}}, "similarity_fn_name"),
        ({"config_sentence_transformers": {"default_prompt_name": "query"}}, "default_prompt_name"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedSentenceModelError, match=message):
        read_settings(write_model(tmp_path, **changes))


def test_the_version_follows_from_all_that_decides_the_vectors(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "small")
    models = [
        read_artefact(embedder_config(directory)).model,
        read_artefact(embedder_config(directory, precision=Precision.FLOAT32)).model,
        read_artefact(embedder_config(write_model(directory, **{"1_Pooling__config": pooling("cls_token")}))).model,
    ]
    with (directory / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("more\n")
    models.append(read_artefact(embedder_config(directory)).model)
    assert len(set(models)) == 4
    assert all(model.startswith("small@") for model in models)
    assert read_artefact(embedder_config(directory, name="Named")).model.startswith("Named@")


def test_other_weights_than_those_of_the_digest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelDigestError, match="SHA-256"):
        read_artefact(embedder_config(write_model(tmp_path), sha256="0" * 64))


def test_a_missing_model_stops_the_start_unless_it_is_optional(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"embedder\.model: .*modules\.json does not exist"):
        bind_embedder(embedder_config(tmp_path))
    assert bind_embedder(embedder_config("package:no-such-package/model", optional=True)) is None
    assert "without embeddings: package:no-such-package" in caplog.text


def test_a_wrong_model_stops_the_start_even_if_it_is_optional(tmp_path: Path) -> None:
    directory = write_model(tmp_path, **{"1_Pooling__config": pooling("max_tokens")})
    with pytest.raises(ValueError, match=r"embedder\.model: .*pooling_mode_max_tokens"):
        bind_embedder(embedder_config(directory, optional=True))


def test_no_file_outside_the_package_is_read() -> None:
    with pytest.raises(ModelNotFoundError):
        read_artefact(embedder_config(f"{PACKAGED}/../../../secret"))


def test_the_packaged_model_is_the_one_that_is_meant() -> None:
    assert read_settings(packaged_directory()) == SentenceSettings(Pooling.MEAN, 256, 384)
