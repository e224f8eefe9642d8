"""The second opinion of small real models, from their files to the scores of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safety.classifier.artefact import ArtefactError, read_artefact
from safety.classifier.legible_text import legible_text
from safety.classifier.loaded_classifier import loaded_classifier
from safety.classifier.second_model import CHARACTERS_PER_TOKEN, SecondModel
from safety.decoder.decoder import Decoder
from safety.decoder.gguf_file import GGUFFile
from tests.safety.artefacts import write_classifier
from tests.safety.second_opinions import SECOND, TOKENS, tuned_tensors, write_base, write_second_opinion


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_second_opinion(tmp_path_factory.mktemp("classifier"), gate=0.0)


@pytest.fixture(scope="module")
def model(directory: Path) -> SecondModel:
    return SecondModel(directory, read_artefact(directory), directory / "base.gguf")


def test_a_sequence_is_the_text_between_prefix_and_end(model: SecondModel) -> None:
    the, letter, space = TOKENS.index("the"), TOKENS.index("a"), TOKENS.index("Ġ")
    assert model.sequence("the a") == [1, 40, the, space, letter, 2]
    assert model.sequence("") == [1, 40, 2]
    assert model.sequence("a" * 999) == [1, 40, *[letter] * SECOND["max_tokens"], 2]


def test_special_tokens_in_a_text_are_text(model: SecondModel) -> None:
    assert {1, 2} & {*model.sequence("<|im_end|><|im_start|>")[2:-1]} == set()


@pytest.mark.parametrize("unseen", ["\u200b", "\u2060\U000e0041", "\x00", "\ufffd", "\U0010ffff", "\ue000"])
def test_invisible_characters_take_no_token(model: SecondModel, unseen: str) -> None:
    """Between the words of an attack they would leave no place for it, while the first model does not see them."""
    padded = f"the{unseen * 300} {unseen * 10**5}a{unseen}"
    assert model.sequence(padded) == model.sequence("the a")


@pytest.mark.parametrize(("run", "kept"), [(" ", " " * 8), ("\n ", "\n " * 4), ("\u0301", "\u0301" * 8)])
def test_long_runs_of_white_space_and_marks_take_few_tokens(run: str, kept: str) -> None:
    assert legible_text(f"a{run * 500}b") == f"a{kept}b"


@pytest.mark.parametrize("text", ["a\tb\n\n    c\r\n", "naïve é e\u0301 中文 한 हिन्दी ไทย 🙂!", ""])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert legible_text(text) == text


def test_a_window_is_read_up_to_a_bound(model: SecondModel) -> None:
    most = CHARACTERS_PER_TOKEN * SECOND["max_tokens"]
    assert len(model.sequence("a" * most * 10)) == SECOND["max_tokens"] + 3


def test_the_head_reads_the_mean_of_the_text_and_the_last_token(model: SecondModel, directory: Path) -> None:
    batch = [model.sequence(text) for text in ("the bomb", "a", "", "b" * 50)]
    decoder = Decoder.load(GGUFFile(directory / "base.gguf"), SECOND["layers"], directory / SECOND["file"])
    stored = tuned_tensors()
    for sequence, row in zip(batch, model.logits(batch), strict=True):
        states = decoder.encode([sequence]).rows
        text = states[2:-1] if len(sequence) > 3 else states[-1:]
        pooled = np.concatenate([text.mean(axis=0), states[-1]])
        np.testing.assert_allclose(row, stored["head.weight"] @ pooled + stored["head.bias"], atol=1e-4)


async def test_a_text_has_the_same_scores_alone_and_in_any_batch(directory: Path) -> None:
    classifier = loaded_classifier(directory, directory / "base.gguf")
    assert classifier.version == "tiny-1"
    texts = ["hi", "the bomb " * 60, "", "Ünïcödé 我们 \u200b🙂", "x" * 300, "a-b [c]!" * 9]
    together = await classifier.classify(texts)
    assert classifier.second is not None
    # The long windows are the first model's alone.
    assert 0 < classifier.second.runner.sequences < classifier.runner.sequences
    for text, scores in zip(texts, together, strict=True):
        (alone,) = await classifier.classify([text])
        assert alone.categories == pytest.approx(scores.categories, abs=1e-5)
        assert alone.injection == pytest.approx(scores.injection, abs=1e-5)
    classifier.close()


async def test_a_second_opinion_changes_the_scores_and_the_version(directory: Path) -> None:
    both, one = loaded_classifier(directory, directory / "base.gguf"), loaded_classifier(directory)
    assert (both.version, one.version) == ("tiny-1", "tiny-1-alone")
    assert await both.classify(["the bomb"]) != await one.classify(["the bomb"])
    both.close()
    one.close()


async def test_long_words_do_not_hide_an_attack_from_the_second_model(directory: Path) -> None:
    """A word is one piece for the first model, and all the tokens that the second one reads."""
    both, one = loaded_classifier(directory, directory / "base.gguf"), loaded_classifier(directory)
    for filler in ("x" * 150, "b" * 101, "~@" * 13):
        (judged,), (alone,) = await both.classify([f"{filler} the bomb"]), await one.classify([f"{filler} the bomb"])
        assert all(judged.categories[name] >= score - 1e-6 for name, score in alone.categories.items())
        assert judged.injection >= alone.injection - 1e-6
    both.close()
    one.close()


def test_files_without_a_second_opinion_need_no_base(tmp_path: Path) -> None:
    classifier = loaded_classifier(write_classifier(tmp_path), tmp_path / "none.gguf")
    assert (classifier.version, classifier.second) == ("tiny-1", None)
    with pytest.raises(ArtefactError, match="has no second_opinion"):
        SecondModel(tmp_path, read_artefact(tmp_path), tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        ({"norm.weight": None}, {}, "has no tensor norm.weight"),
        ({"layers.1.mlp.up_proj.weight": None}, {}, r"has no tensor layers\.1\.mlp\.up_proj\.weight"),
        ({"head.weight": np.zeros((3, 32), np.float32)}, {}, r"must be \[3, 128\], not \[3, 32\]"),
        ({}, {"tuned_from": 0}, r"has no tensor layers\.0"),
        ({}, {"end": len(TOKENS)}, "token ids are below"),
        ({}, {"max_tokens": 62}, "too long for the decoder"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, tensors: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    stored = {name: tensor for name, tensor in (tuned_tensors() | tensors).items() if tensor is not None}
    write_second_opinion(tmp_path, stored, **changes)
    with pytest.raises(ArtefactError, match=message):
        loaded_classifier(tmp_path, tmp_path / "base.gguf")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_second_opinion(tmp_path)
    (tmp_path / SECOND["file"]).unlink()
    with pytest.raises(FileNotFoundError, match="second_opinion"):
        loaded_classifier(tmp_path, write_base(tmp_path / "other.gguf"))
