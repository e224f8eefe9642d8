"""The shares of all ranks make up the model, each rank reads its own alone, and what is uneven is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine import Engine
from engine.config import EngineConfig
from engine.kv.format import format_of
from engine.kv.planner import bytes_per_token
from engine.model.checkpoint import Checkpoint
from engine.model.configuration import read_spec, spec_of
from engine.model.loader import load_weights
from engine.model.source import open_model
from engine.model.spec import ModelSpec
from engine.model.weights import ExpertWeights, ModelWeights, plain
from engine.parallel.share import Cut, Share
from engine.plan import LLAMA_70B
from tests.engine.families import CONFIGS, Oracle

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = Oracle(name, tmp_path_factory.mktemp("shares") / name).directory
        return made[name]

    return of


def shares(path: Path, ranks: int) -> list[ModelWeights]:
    return [load_weights(open_model(path), torch.float32, CPU, Share(rank, ranks)) for rank in range(ranks)]


def by_heads(weights: list[Tensor], spec: ModelSpec, ranks: int) -> Tensor:
    """Rows of queries, keys and values of all ranks in the order of the whole."""
    local = Share(0, ranks).spec(spec)
    sides = [local.num_heads, local.num_kv_heads, local.num_kv_heads]
    parts = [weight.unflatten(0, (-1, spec.head_dim)).split(sides) for weight in weights]
    copies = ranks // spec.num_kv_heads if ranks > spec.num_kv_heads else 1
    queries = torch.cat([part[0] for part in parts])
    keys, values = (torch.cat([part[side] for part in parts[::copies]]) for side in (1, 2))
    return torch.cat((queries, keys, values)).flatten(0, 1)


def by_halves(weights: list[Tensor], gated: bool, dim: int = 0) -> Tensor:
    halves = [weight.chunk(2 if gated else 1, dim) for weight in weights]
    return torch.cat([half[side] for side in range(len(halves[0])) for half in halves], dim)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_shares_add_up_to_the_model(directory: Callable[[str], Path], name: str, ranks: int) -> None:
    path = directory(name)
    spec = read_spec(path)
    whole, parts = load_weights(open_model(path), torch.float32, CPU), shares(path, ranks)

    assert torch.equal(torch.cat([part.embedding for part in parts])[: spec.vocab_size], whole.embedding)
    assert torch.equal(torch.cat([plain(part.head) for part in parts])[: spec.vocab_size], plain(whole.head))
    for number, layer in enumerate(whole.layers):
        own = [part.layers[number] for part in parts]
        assert torch.equal(by_heads([plain(each.qkv) for each in own], spec, ranks), plain(layer.qkv))
        assert torch.equal(torch.cat([plain(each.output) for each in own], 1), plain(layer.output))
        if layer.qkv_bias is not None:
            assert torch.equal(
                by_heads([e.qkv_bias for e in own if e.qkv_bias is not None], spec, ranks), layer.qkv_bias
            )
        assert [each.output_bias is not None for each in own] == [layer.output_bias is not None, *[False] * (ranks - 1)]
        mlps: list[Any] = [each.mlp for each in own]
        dim = 1 if isinstance(layer.mlp, ExpertWeights) else 0
        assert torch.equal(by_halves([each.gate_up for each in mlps], spec.gated, dim), plain(layer.mlp.gate_up))
        assert torch.equal(torch.cat([each.down for each in mlps], -1), plain(layer.mlp.down))


def test_a_rank_reads_its_own_rows_and_no_more(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    part = Checkpoint.part

    def counting(self: Checkpoint, name: str, dtype: torch.dtype, *kept: slice) -> Tensor:
        nonlocal read
        found = part(self, name, dtype, *kept)
        read += found.numel()
        return found

    monkeypatch.setattr(Checkpoint, "part", counting)
    path = directory("llama")
    load_weights(open_model(path), torch.float32, CPU)
    whole, read = read, 0

    load_weights(open_model(path), torch.float32, CPU, Share(1, 2))

    assert read < 0.51 * whole


def test_a_vocabulary_that_does_not_divide_is_padded_with_zeros(directory: Callable[[str], Path]) -> None:
    path = directory("llama")
    spec = read_spec(path)
    share = Share(2, 3)
    odd = replace(spec, num_heads=6, num_kv_heads=3, intermediate_size=66)

    assert share.vocabulary(odd) == Cut(512, (slice(342, 512),))
    assert share.vocabulary_rows(odd) == 171
    assert share.spec(odd).vocab_size == 512


@pytest.mark.parametrize(
    ("changes", "ranks", "field"),
    [
        ({"num_attention_heads": 6, "num_key_value_heads": 2}, 4, "num_attention_heads 6"),
        ({"num_attention_heads": 12, "num_key_value_heads": 3}, 2, "num_key_value_heads 3"),
        ({"num_attention_heads": 12, "num_key_value_heads": 3}, 4, "num_key_value_heads 3"),
        ({"intermediate_size": 66}, 4, "intermediate_size 66"),
        ({"vocab_size": 5}, 4, "vocab_size 5"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(changes: dict[str, int], ranks: int, field: str) -> None:
    spec = spec_of({**LLAMA_70B, **changes})

    with pytest.raises(ValueError, match=f"tensor_parallel: {field} cannot be split over {ranks} ranks"):
        Share(0, ranks).spec(spec)


def test_experts_that_cannot_be_split_are_refused() -> None:
    spec = spec_of(CONFIGS["qwen3-moe-window"].to_dict() | {"architectures": ["Qwen3MoeForCausalLM"]})

    with pytest.raises(ValueError, match="intermediate_size of experts 24"):
        Share(0, 16).spec(replace(spec, num_heads=16))


def test_an_engine_refuses_before_it_starts_anything(directory: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="num_attention_heads 4"):
        Engine.from_pretrained(directory("llama"), tensor_parallel=3)


def test_the_compiled_kernels_are_not_split() -> None:
    with pytest.raises(ValueError, match="tensor_parallel"):
        EngineConfig(model="x", tensor_parallel=2, kernels="compiled")


@pytest.mark.parametrize(("ranks", "expected"), [(1, 327_680), (4, 81_920), (8, 40_960), (16, 40_960)])
def test_the_plan_of_the_cache_counts_one_ranks_heads(ranks: int, expected: int) -> None:
    spec = Share(0, ranks).spec(spec_of(LLAMA_70B))

    assert bytes_per_token(spec, format_of("bfloat16", torch.bfloat16)) == expected


@given(st.data())
def test_heads_of_all_ranks_cover_the_model_and_read_their_own_keys(data: st.DataObject) -> None:
    kv_heads = data.draw(st.integers(1, 8))
    group = data.draw(st.integers(1, 8))
    ranks = data.draw(st.sampled_from([n for n in range(1, 65) if kv_heads * group % n == 0]))
    spec = replace(spec_of(LLAMA_70B), num_heads=kv_heads * group, num_kv_heads=kv_heads, intermediate_size=ranks)
    if kv_heads % ranks and ranks % kv_heads:
        return
    owned: list[int] = []
    for rank in range(ranks):
        share = Share(rank, ranks)
        local = share.spec(spec)
        heads, kept = range(spec.num_heads)[share.heads(spec)], range(kv_heads)[share.kv_heads(spec)]
        owned += heads
        assert (len(heads), len(kept)) == (local.num_heads, local.num_kv_heads)
        # What a head reads in the whole model is what it reads among its rank's own.
        within = len(heads) // len(kept)
        assert [kept[place // within] for place in range(len(heads))] == [head // group for head in heads]
    assert owned == list(range(spec.num_heads))
