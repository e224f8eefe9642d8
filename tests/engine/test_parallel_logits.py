"""A model over two or four processes computes what it computes in one: every family, in float32, over gloo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from engine import SamplingParams
from engine.runner import Runner
from tests.engine.families import CONFIGS, SETTINGS, Oracle, Recorded, record
from tests.engine.models import SHAPE, VOCAB, ragged_prompts, save
from tests.engine.ranks import split_engine, whole_engine

pytestmark = pytest.mark.usefixtures("clear_choices")

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
ODD = LlamaConfig(
    **SHAPE | {"vocab_size": VOCAB + 3, "num_attention_heads": 8, "num_key_value_heads": 8}, tie_word_embeddings=True
)
"""Vocabularies are padded, and with eight heads of keys each rank has several."""


@dataclass(frozen=True)
class Known:
    """A model, and what one process makes of the prompts."""

    directory: Path
    settings: dict[str, Any]
    answers: list[tuple[int, ...]]
    logits: Recorded


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    with pytest.MonkeyPatch.context() as patch:
        yield record(patch, Runner)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, recorded: Recorded) -> Callable[[str], Known]:
    @cache
    def make(name: str) -> Known:
        directory = tmp_path_factory.mktemp("split") / name
        if name == "odd":
            save(ODD, directory)
        else:
            Oracle(name, directory)
        settings = {"prefill_chunk": 64, **SETTINGS.get(name, {})}
        answers = whole_engine(directory, **settings).generate(ragged_prompts(VOCAB), GREEDY)
        logits = dict(recorded)
        recorded.clear()
        return Known(directory, settings, [answer.token_ids for answer in answers], logits)

    return make


def close(found: Tensor, expected: Tensor) -> bool:
    """Within 1e-5 of the size of the logits: their sums were added up in another order."""
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", [*CONFIGS, "odd"])
def test_logits_are_those_of_one_process(
    known: Callable[[str], Known], recorded: Recorded, name: str, ranks: int
) -> None:
    model = known(name)
    engine = split_engine(model.directory, ranks, **model.settings)
    try:
        answers = [answer.token_ids for answer in engine.generate(ragged_prompts(VOCAB), GREEDY)]
        found = dict(recorded)
        recorded.clear()
    finally:
        engine.close()

    assert answers == model.answers
    assert found.keys() == model.logits.keys()
    assert all(close(found[key], model.logits[key]) for key in found)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_logits_are_close(known: Callable[[str], Known], recorded: Recorded, dtype: str) -> None:
    model, prompts = known("llama"), ragged_prompts(VOCAB)[5:]
    engine = split_engine(model.directory, 2, dtype=dtype)
    try:
        engine.generate(prompts, SamplingParams(temperature=0, max_tokens=1))
        found = dict(recorded)
        recorded.clear()
    finally:
        engine.close()

    for number, prompt in enumerate(prompts):
        expected = model.logits[str(number + 5), len(prompt)]
        assert torch.cosine_similarity(found[str(number), len(prompt)], expected, 0) > 0.99
