"""Numbers of sizes that a trained model rarely has: gates far from zero, and scores that leave no doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine import SamplingParams
from engine.kernels.cpu.runner import CompiledRunner
from engine.kernels.cpu.tiles import Tiles
from tests.engine.compiled import make_engine
from tests.engine.families import Recorded, record, write_family
from tests.engine.kernel_builds import UseTiles
from tests.engine.models import VOCAB, ragged_prompts

ONE = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
FOUR = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
SHAPE = {
    "hidden_size": 64,
    "head_dim": 32,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 1024,
}
PAST_A_CHUNK = 620  # tokens; attention in tiles takes 256 at a time


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return record(monkeypatch, CompiledRunner)


def enlarge(directory: Path, matrix: str, by: float) -> None:
    """Multiplies all weights of that name."""
    for file in directory.glob("*.safetensors"):
        weights = load_file(file)
        found = [name for name in weights if matrix in name]
        assert found
        save_file(weights | {name: weights[name] * by for name in found}, file, {"format": "pt"})


@pytest.mark.parametrize("by", [10.0, 1e4, 1e30])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_gates_of_any_size_give_what_transformers_gives(
    recorded: Recorded, tmp_path: Path, name: str, by: float
) -> None:
    """SiLU and GELU of large gates are the gates, or nothing."""
    write_family(name, tmp_path, **SHAPE)
    enlarge(tmp_path, "gate_proj", by)
    enlarge(tmp_path, "down_proj", 1 / by)
    prompts = ragged_prompts(VOCAB)
    oracle: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path, local_files_only=True, dtype=torch.float32, attn_implementation="eager"
    )

    answers = [answer.token_ids for answer in make_engine(tmp_path).generate(prompts, FOUR)]

    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        with torch.inference_mode():
            logits = oracle(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        found = torch.stack([recorded[str(number), len(prompt) + n] for n in range(len(answer))])
        torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("registers", [Tiles.EMULATED, Tiles.HARDWARE], ids=lambda each: each.name)
@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
@pytest.mark.parametrize("by", [30.0, 1e3, 1e5, 1e12])
def test_scores_far_above_all_earlier_ones_win(
    recorded: Recorded, use_tiles: UseTiles, tmp_path: Path, registers: Tiles, kv_dtype: str, by: float
) -> None:
    """A token past the first chunk may outweigh all tokens of the first one by more than a float holds."""
    write_family("llama", tmp_path, **SHAPE)
    enlarge(tmp_path, "q_proj", by)
    prompts = [[(at * at * 7 + seed * at) % (VOCAB - 1) + 1 for at in range(PAST_A_CHUNK)] for seed in range(3, 14)]
    found = []
    for kind in (Tiles.NONE, registers):
        use_tiles(kind)
        make_engine(tmp_path, dtype="bfloat16", kv_dtype=kv_dtype, prefill_chunk=700).generate(prompts, ONE)
        found.append(dict(recorded))
        recorded.clear()

    without, with_tiles = (torch.stack([rows[key] for key in found[0]]) for rows in found)
    assert torch.isfinite(with_tiles).all()
    apart = (with_tiles - without).norm(dim=1) / without.norm(dim=1)
    assert float(apart.median()) < 0.03  # where two scores are nearly equal, rounding decides who wins


@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_scores_far_above_earlier_ones_give_the_same_bits_in_pieces(
    recorded: Recorded, use_tiles: UseTiles, tmp_path: Path, name: str, kv_dtype: str
) -> None:
    """Some layers of gemma2 see 300 tokens, and its scores are capped."""
    use_tiles(Tiles.EMULATED)
    write_family(name, tmp_path, **SHAPE, **({"sliding_window": 300} if name == "gemma2" else {}))
    enlarge(tmp_path, "q_proj", 1e3)
    prompts = [[(at * at * 7 + seed * at) % (VOCAB - 1) + 1 for at in range(PAST_A_CHUNK)] for seed in (3, 4)]
    make_engine(tmp_path, dtype="bfloat16", kv_dtype=kv_dtype, prefill_chunk=700).generate(prompts, FOUR)
    whole = dict(recorded)
    recorded.clear()

    make_engine(tmp_path, dtype="bfloat16", kv_dtype=kv_dtype, prefill_chunk=97, threads=2).generate(prompts, FOUR)

    assert recorded.keys() == whole.keys()
    assert all(torch.equal(recorded[key], row) for key, row in whole.items())
