"""The training loop: what it reads, how it steps, and that a run which was cut goes on as if it had not been."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.models.training.attention import use_float32_attention
from deployments.models.training.curriculum import HARD, draw_tasks
from deployments.models.training.curriculum.task import FAMILIES, Turn
from deployments.models.training.optimizer import Muon, orthogonalised
from deployments.models.training.stream import BEGINNING, GROWN, Batch, Stream, encode
from deployments.models.training.tokenizer import load_tokenizer
from deployments.models.training.trainer import Trainer, weighted_loss

MODELS = Path(__file__).resolve().parents[2] / "deployments" / "models"
TALK = ((Turn("user", "How are you?"), Turn("assistant", "Very well, thank you.")),)


@pytest.fixture(name="tokenizer", scope="module")
def _tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(MODELS / "fast")


def tiny(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    )


class StoppedError(Exception):
    """Stands for a run that is cut."""


class CutStream(Stream):
    """Breaks off when the second chunk is asked for."""

    def batches(self, chunk: int) -> list[Batch]:
        if chunk > 0:
            raise StoppedError
        return super().batches(chunk)


def trainer(stream: Stream, checkpoint: Path, budget: int) -> tuple[Trainer, LlamaForCausalLM]:
    model = tiny()
    return Trainer(model, stream, budget=budget, peak=2e-2, checkpoint=checkpoint), model


def test_what_is_learnt_is_what_the_chat_template_says(tokenizer: PreTrainedTokenizerFast) -> None:
    for task in draw_tasks(60, "template"):
        turns = (*task.turns, Turn("assistant", task.reply))
        [(ids, weights)] = encode(tokenizer, [(turns, 1.0)])
        text = tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.content} for turn in turns], tokenize=False
        )

        assert ids == tokenizer.encode(str(text), add_special_tokens=False)
        assert len(weights) == len(ids)


def test_only_what_the_assistant_says_and_its_end_count(tokenizer: PreTrainedTokenizerFast) -> None:
    [(ids, weights)] = encode(tokenizer, [((Turn("user", "Hello!"), Turn("assistant", "Good morning!")), 0.5)])

    counted = [token for token, weight in zip(ids, weights, strict=True) if weight]
    assert tokenizer.decode(counted) == "Good morning!<|end|>"
    assert set(weights) == {0.0, 0.5}


def test_a_chunk_is_a_function_of_its_number(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.models.training.stream.CHUNK", 200)
    stream = Stream(tokenizer, TALK, batch_tokens=1024, seed=3)

    first, again, second = stream.batches(4), stream.batches(4), stream.batches(5)

    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, again, strict=True))
    assert not all(
        a.tokens.shape == b.tokens.shape and torch.equal(a.tokens, b.tokens)
        for a, b in zip(first, second, strict=False)
    )
    assert all(batch.tokens.numel() <= 1024 for batch in first)


def test_padding_changes_no_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = torch.tensor([tokenizer.encode("<|bos|><|user|>Hello!<|end|><|assistant|>Hello!<|end|>")])
    weight = torch.ones(tokens.shape)
    padding = torch.full((1, 7), tokenizer.pad_token_id)
    padded = Batch(torch.cat([tokens, padding], 1), torch.cat([weight, torch.zeros(1, 7)], 1))
    model = tiny()

    torch.testing.assert_close(weighted_loss(model, padded), weighted_loss(model, Batch(tokens, weight)))


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 32, 32)])
def test_an_update_has_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    made = orthogonalised(torch.randn(shape))

    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_an_update_turns_no_direction_of_the_gradient() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(1, 12, 20)
    left, _, right = torch.linalg.svd(gradient[0], full_matrices=False)

    inner = left.T @ orthogonalised(gradient)[0] @ right.T

    torch.testing.assert_close(inner, torch.diag(inner.diag()), atol=1e-4, rtol=0)


def test_muon_goes_down_and_leaves_what_has_no_gradient() -> None:
    torch.manual_seed(0)
    weight, idle = torch.nn.Parameter(torch.randn(8, 8)), torch.nn.Parameter(torch.ones(8, 8))
    goal = torch.randn(8, 8)
    with ThreadPoolExecutor(1) as pool:
        muon = Muon([weight, idle], pool)
        muon.param_groups[0]["lr"] = 0.1
        before = float((weight - goal).square().sum().detach())
        for _ in range(100):
            weight.grad = 2 * (weight.detach() - goal)
            muon.step()

    assert float((weight - goal).square().sum().detach()) < 0.3 * before
    assert torch.equal(idle, torch.ones(8, 8))


@pytest.mark.slow
def test_a_run_that_was_cut_ends_like_one_that_was_not(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.models.training.stream.CHUNK", 64)
    monkeypatch.setattr("deployments.models.training.trainer.SAVE_SECONDS", 0.0)
    whole, uncut = trainer(Stream(tokenizer, TALK, batch_tokens=512, seed=0), tmp_path / "whole.pt", 12_000)
    first, _ = trainer(CutStream(tokenizer, TALK, batch_tokens=512, seed=0), tmp_path / "cut.pt", 12_000)
    rest, resumed = trainer(Stream(tokenizer, TALK, batch_tokens=512, seed=0), tmp_path / "cut.pt", 12_000)

    run = whole.run("whole")
    with pytest.raises(StoppedError):
        first.run("first")
    after = rest.run("rest")

    assert (after.steps, after.tokens) == (run.steps, run.tokens)
    for ours, theirs in zip(resumed.parameters(), uncut.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.slow
def test_training_lowers_the_loss(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.models.training.stream.CHUNK", 512)
    made, model = trainer(
        Stream(tokenizer, TALK * 200, batch_tokens=1024, seed=0, first=BEGINNING), tmp_path / "run.pt", 100_000
    )
    [(ids, weights)] = encode(tokenizer, [(TALK[0], 1.0)])
    talk = Batch(torch.tensor([ids]), torch.tensor([weights]))
    before = weighted_loss(model, talk).item()

    made.run("run")

    assert weighted_loss(model, talk).item() < 0.5 * before


def test_attention_in_float32_is_the_models_own() -> None:
    plain, subject = tiny(), tiny()
    use_float32_attention(subject)
    tokens = torch.randint(0, 4096, (3, 17), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones(3, 17))
    losses = [weighted_loss(model, batch) for model in (plain, subject)]
    for loss in losses:
        loss.backward()

    assert torch.allclose(losses[0], losses[1], rtol=0.01)  # bfloat16 elsewhere, where the processor has it
    for expected, found in zip(plain.parameters(), subject.parameters(), strict=True):
        assert expected.grad is not None
        assert found.grad is not None
        assert torch.cosine_similarity(expected.grad.flatten(), found.grad.flatten(), 0) > 0.99


def test_a_mixture_gives_each_family_its_share() -> None:
    shares = {family: float(family in ("arithmetic", "tables")) for family in FAMILIES}
    drawn = Counter(task.family for task in draw_tasks(400, "shares", shares=shares))

    assert set(drawn) == {"arithmetic", "tables", "copying", "sums"}
    assert min(drawn["arithmetic"], drawn["tables"]) > 100


def test_larger_tiers_read_every_family() -> None:
    assert set(HARD) == set(FAMILIES)
    assert all(share > 0 for share in HARD.values())


def test_the_same_chunk_is_the_same_whatever_was_read_before(tokenizer: PreTrainedTokenizerFast) -> None:
    streams = [Stream(tokenizer, TALK, batch_tokens=512, seed=1, first=BEGINNING, mixture=GROWN) for _ in range(2)]
    streams[0].batches(BEGINNING)

    first, second = (stream.batches(BEGINNING + 1) for stream in streams)

    assert len(first) == len(second)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))


def test_a_finished_run_takes_no_step_more(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    stream = Stream(tokenizer, TALK, batch_tokens=256, seed=0)
    first, model = trainer(stream, tmp_path / "a.pt", 400)
    done = first.run("")
    again, same = trainer(stream, tmp_path / "a.pt", 400)

    assert again.run("") == done
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    stream = Stream(tokenizer, TALK, batch_tokens=256, seed=0)
    path = tmp_path / "a.pt"
    Trainer(tiny(), stream, budget=300, peak=1e-3, checkpoint=path, identity="one").run("")

    with pytest.raises(ValueError, match="another run"):
        Trainer(tiny(), stream, budget=300, peak=1e-3, checkpoint=path, identity="other").run("")
