"""The pair scorer: order and neighbours make no difference, what does not fit is refused, and torch agrees."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import BertConfig, BertModel

from cluster.pair_scorer.pair_model import PairModel
from cluster.pair_scorer.pair_model_files import ArtefactError, read_artefact
from cluster.pair_scorer.pair_scorer import LocalPairScorer
from router.ports.pair_scorer import Candidate, PairScorer
from safety.encoder.precision import Precision
from safety.encoder.word_pieces import WordPieces

LETTERS = "abcdefghijklmnopqrstuvwxyz?"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
SIZES = {"layers": 2, "hidden": 24, "heads": 4, "intermediate": 48, "positions": 64, "vocabulary": len(VOCABULARY)}
CONFIG: dict[str, Any] = {
    "version": "tiny@1",
    "architecture": {**SIZES, "layer_norm_eps": 1e-12},
    "max_tokens": 40,
    "combination": {"pair": 1.5, "cosine": 2.0, "offset": -1.0},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = BertModel(bert_config(), add_pooling_layer=False)
    tensors: dict[str, NDArray[Any]] = {
        name: (value.numpy() + 0.1 * np.random.default_rng(3).standard_normal(value.shape)).astype(np.float32)
        for name, value in model.state_dict().items()
    }
    tensors["head.weight"] = np.random.default_rng(4).standard_normal((1, 48)).astype(np.float32)
    tensors["head.bias"] = np.array([0.3], np.float32)
    return written(tmp_path_factory.mktemp("tiny"), tensors, CONFIG)


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=SIZES["vocabulary"],
        hidden_size=SIZES["hidden"],
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        intermediate_size=SIZES["intermediate"],
        max_position_embeddings=SIZES["positions"],
        attn_implementation="eager",  # type: ignore[call-arg]  # one of the common settings
    )


def written(directory: Path, tensors: dict[str, NDArray[Any]], config: dict[str, Any]) -> Path:
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return directory


def reference(directory: Path, one: str, other: str) -> float:
    """The logit of a pair in one order, by Hugging Face's model."""
    tensors = {name: torch.from_numpy(value) for name, value in load_file(directory / "model.safetensors").items()}
    model = BertModel(bert_config(), add_pooling_layer=False).eval()
    model.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("head")})
    pieces = WordPieces(directory / "vocab.txt")
    first, second = pieces(one), pieces(other)
    tokens = [pieces.cls, *first, pieces.sep, *second, pieces.sep]
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    with torch.inference_mode():
        hidden = model(torch.tensor([tokens]), token_type_ids=torch.tensor([types])).last_hidden_state[0]
        pooled = torch.cat([hidden.mean(0), hidden[0]])
        return float(tensors["head.weight"][0] @ pooled + tensors["head.bias"][0])


def test_a_score_is_the_mean_of_both_orders_combined_with_the_cosine(tiny: Path) -> None:
    model = PairModel(tiny, Precision.FLOAT32)
    mean = (reference(tiny, "is it so?", "is that so") + reference(tiny, "is that so", "is it so?")) / 2
    assert model.logits([("is it so?", "is that so")]) == pytest.approx(mean, abs=1e-4)
    expected = 1 / (1 + math.exp(-(1.5 * mean + 2 * 0.8 - 1)))
    assert model.probabilities("is it so?", ["is that so"], [0.8]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("precision", Precision)
def test_it_depends_neither_on_the_order_nor_on_the_other_candidates(tiny: Path, precision: Precision) -> None:
    model, others = PairModel(tiny, precision), ["b", "is it", "what is a longer one?", ""]
    together = model.logits([("is it so", other) for other in others])
    for place, other in enumerate(others):
        assert model.logits([(other, "is it so")])[0] == pytest.approx(together[place], abs=1e-4)


def test_a_pair_that_is_too_long_to_be_read_whole_has_the_probability_0(tiny: Path) -> None:
    scores = PairModel(tiny).probabilities("a " * 20, ["b " * 17, "b " * 18], [1, 1])
    assert scores[0] > 0
    assert scores[1] == 0


@pytest.mark.parametrize("cosine", [math.nan, math.inf])
def test_a_cosine_that_is_no_number_is_refused(tiny: Path, cosine: float) -> None:
    with pytest.raises(ValueError, match="cosine"):
        PairModel(tiny).probabilities("a", ["b"], [cosine])


async def test_the_local_scorer_answers_in_order(tiny: Path) -> None:
    scorer = LocalPairScorer(tiny)
    port: PairScorer = scorer
    assert port.version == "tiny@1"
    assert await port.score("a", []) == ()
    together = await port.score("a b", [Candidate("a c", 0.9), Candidate("d", 0.1)])
    assert list(together) == pytest.approx(PairModel(tiny).probabilities("a b", ["a c", "d"], [0.9, 0.1]).tolist())
    scorer.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": ""}, "version"),
        ({"max_tokens": 65}, "max_tokens"),
        ({"combination": {"pair": 0, "cosine": 1, "offset": 0}}, "combination.pair"),
        ({"combination": {"pair": 1, "cosine": 1, "offset": "NaN"}}, "combination.offset"),
        ({"architecture": {}}, "architecture.layers"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | change), encoding="utf-8")
    with pytest.raises(ArtefactError, match=message):
        read_artefact(tmp_path)


def test_a_head_of_another_size_is_refused(tiny: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny / "model.safetensors")
    tensors["head.weight"] = np.zeros((2, 48), np.float32)
    with pytest.raises(ArtefactError, match=r"head\.weight"):
        PairModel(written(tmp_path, tensors, CONFIG))
