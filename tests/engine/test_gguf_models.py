"""Models in GGUF files give the logits and greedy answers of transformers on the weights that the file holds."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch

from engine import Engine, SamplingParams
from engine.backend import load_model
from engine.completion import Completion
from engine.config import EngineConfig
from engine.model.source import open_model
from engine.runner import Runner
from engine.token_id_tokenizer import TokenIds
from tests.engine.families import Recorded, record
from tests.engine.gguf_files import FLOATS, K_TYPES, KINDS, SavedGGUF, Type

BLOCK_TYPES = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0)
FIVE_KINDS = ("llama", "qwen3", "gemma2", "phi3", "gpt2")
PROMPT = [*range(3, 60), *range(3, 20)]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def engine_of(path: Path, **settings: object) -> Engine:
    config = EngineConfig(model=str(path), kv_cache_tokens=1024, **settings)  # type: ignore[arg-type]
    return Engine(config, load_model(config, open_model(path)), TokenIds(frozenset()))


def scores(answer: Completion) -> torch.Tensor:
    """The log probability of each token of the prompt but the first, float64 [tokens]."""
    assert answer.prompt_logprobs is not None
    return torch.tensor([each.chosen.logprob for each in answer.prompt_logprobs[1:]], dtype=torch.float64)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return record(monkeypatch, Runner)


def check(saved: SavedGGUF, recorded: Recorded) -> None:
    answer = engine_of(saved.path, kernels="torch").generate([PROMPT], GREEDY)[0].token_ids

    expected = saved.logits([*PROMPT, *answer])[len(PROMPT) - 1 : -1]
    found = torch.stack([recorded["0", len(PROMPT) + n] for n in range(len(answer))])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    largest = expected.max(-1).values
    taken = expected[torch.arange(len(answer)), torch.tensor(answer)]
    assert (largest - taken).max() < 2e-3  # as far as both sides may be off


@pytest.mark.parametrize("stored", [Type.Q8_0, Type.F32], ids=lambda stored: stored.name)
@pytest.mark.parametrize("name", KINDS)
def test_every_architecture(name: str, stored: gguf.GGMLQuantizationType, tmp_path: Path, recorded: Recorded) -> None:
    check(SavedGGUF(name, stored, tmp_path), recorded)


@pytest.mark.parametrize(("stored", "said"), [(Type.Q6_K, True), (Type.Q4_K, False)], ids=lambda value: str(value))
def test_weights_that_are_rounded_anew_are_said(
    stored: gguf.GGMLQuantizationType, said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    engine_of(SavedGGUF("llama", stored, tmp_path).path).close()

    assert ("in groups of 16 are rounded to 8 bits" in caplog.text) is said


MIB = 1024**2


@pytest.mark.parametrize(
    ("kind", "kernels", "weights"),
    [
        # Two layers of three projections of experts; and the embedding of an output layer of its own.
        ("mixtral", "torch", 6 * 4 * 256 * 256 + 512 * 256),
        ("llama-stretched", "auto", 512 * 256),
    ],
)
def test_what_is_unpacked_as_it_is_read_is_said_with_what_it_takes(
    kind: str, kernels: str, weights: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    engine_of(SavedGGUF(kind, Type.Q8_0, tmp_path).path, kernels=kernels).close()

    said = f"{weights * 34 / 32 / MIB:.0f} MiB of quantised weights are unpacked as they are read, and take"
    assert f"{said} {weights * 4 / MIB:.0f} MiB" in caplog.text


def test_what_is_unpacked_for_torch_is_said_with_what_it_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    engine_of(SavedGGUF("llama-wide", Type.Q4_1, tmp_path).path, kernels="torch").close()

    weights = 1024 * 256 + 2 * (3 * 6144 * 256 + (2 * 256 + 2 * 64) * 256)
    said = f"{weights * 20 / 32 / MIB:.0f} MiB of quantised weights are unpacked to float32, in which they take"
    assert f"{said} {weights * 4 / MIB:.0f} MiB" in caplog.text
    assert "as they are read" not in caplog.text


@pytest.mark.parametrize("stored", [*FLOATS, *BLOCK_TYPES, *K_TYPES], ids=lambda stored: stored.name)
@pytest.mark.parametrize("name", FIVE_KINDS)
def test_every_type(name: str, stored: gguf.GGMLQuantizationType, tmp_path: Path, recorded: Recorded) -> None:
    check(SavedGGUF(name, stored, tmp_path), recorded)


@pytest.mark.parametrize("stored", [Type.Q4_1, Type.Q4_K], ids=lambda stored: stored.name)
def test_four_bits_asked_for_and_stored_are_not_rounded_again(
    stored: gguf.GGMLQuantizationType, tmp_path: Path, recorded: Recorded
) -> None:
    path = SavedGGUF("llama", stored, tmp_path).path
    engine_of(path, kernels="torch").generate([PROMPT], GREEDY)
    as_stored = dict(recorded)
    recorded.clear()

    engine_of(path, kernels="torch", weight_dtype="int4").generate([PROMPT], GREEDY)

    assert recorded.keys() == as_stored.keys()
    assert all(torch.equal(logits, as_stored[place]) for place, logits in recorded.items())


def test_eight_bits_are_rounded_to_the_four_that_are_asked_for(tmp_path: Path, recorded: Recorded) -> None:
    path = SavedGGUF("llama", Type.Q8_0, tmp_path).path
    engine_of(path, kernels="torch").generate([PROMPT], GREEDY)
    first = recorded["0", len(PROMPT)].clone()
    recorded.clear()

    engine_of(path, kernels="torch", weight_dtype="int4").generate([PROMPT], GREEDY)

    assert not torch.allclose(recorded["0", len(PROMPT)], first, atol=1e-4)


@pytest.mark.parametrize("plain_half", ["attention", "all but the embedding"])
def test_a_model_of_plain_matrices_stays_one(plain_half: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A float16 model stays in float16 if only its embedding is quantised."""
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    halves = [f"blk.{layer}.{name}.weight" for layer in (0, 1) for name in names]
    kept = [name for name in halves if "attn" in name] + ["output.weight"] if plain_half == "attention" else halves
    kind = "llama-stretched" if plain_half == "attention" else "llama"
    caplog.set_level("INFO")

    engine_of(SavedGGUF(kind, Type.Q8_0, tmp_path, halves=kept).path).close()

    assert "rounded" not in caplog.text
    assert "of quantised weights are unpacked to float32" in caplog.text


@pytest.mark.parametrize(
    ("kind", "halves", "said"),
    [
        ("llama", ["token_embd.weight"], True),  # tied: Google's Gemma 3 of four bits is so
        ("llama-stretched", ["output.weight"], True),
        ("llama-stretched", ["token_embd.weight"], False),  # only looked up in
        ("llama", ["blk.0.attn_v.weight", "blk.1.ffn_down.weight"], True),
    ],
)
def test_matrices_that_are_not_quantised_do_not_unpack_the_others(
    kind: str, halves: list[str], said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = SavedGGUF(kind, Type.Q4_0, tmp_path, halves=halves).path
    asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, ignore_eos=True)
    caplog.set_level("INFO")
    exact = scores(engine_of(path, kernels="torch").generate([PROMPT], asked)[0])
    caplog.clear()

    found = scores(engine_of(path).generate([PROMPT], asked)[0])

    assert "are unpacked to" not in caplog.text
    assert ("plain weights are rounded to 8 bits" in caplog.text) is said
    assert (found - exact).abs().max() < 0.2
    assert (found - exact).abs().mean() < 0.05
