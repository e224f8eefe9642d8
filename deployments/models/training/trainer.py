"""The training loop: Muon and AdamW, a budget of tokens, resumable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import LlamaForCausalLM

from deployments.models.training.attention import use_float32_attention
from deployments.models.training.optimizer import Muon
from deployments.models.training.stream import Batch, Stream

# Of different lengths, so that no step sees one kind of task alone. On a CPU each has a thread and a core to itself:
# the matrices of these models are too small for two cores to share one well.
BATCHES_PER_STEP = 2
WARM_UP = 0.02  # part of the budget
DECAY = 0.5  # part of the budget, at the end, over which the rate falls to zero
SAVE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a run did. ``seconds`` are those of training alone, over all its parts."""

    steps: int
    tokens: int
    loss: float
    seconds: float


class Trainer:
    """Trains ``model`` on ``stream`` until it has read ``budget`` tokens, padding included.

    ``peak`` is the learning rate after the warm-up. The state is saved to ``checkpoint`` every minute; a run that finds
    one goes on from there and sees what it would have seen. ``identity`` says what is trained how, as far as the
    trainer cannot know: a checkpoint of another identity is refused.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        stream: Stream,
        *,
        budget: int,
        peak: float,
        checkpoint: Path,
        identity: str = "",
    ) -> None:
        self._model = model
        self._stream = stream
        self._budget = budget
        self._peak = peak
        self._checkpoint = checkpoint
        self._identity = identity
        on_cpu = model.device.type == "cpu"
        workers = BATCHES_PER_STEP if on_cpu else 1
        if on_cpu:
            use_float32_attention(model)
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        self._parameters = list(model.parameters())
        hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        muon = Muon(hidden, self._pool, dtype=torch.bfloat16 if has_bfloat16(model.device) else torch.float32)
        self._optimizers = (muon, torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0))
        self._chunk = stream.first
        self._place = self._steps = self._tokens = 0
        self._seconds = 0.0
        self._loss = 0.0

    def run(self, label: str) -> TrainingRun:
        """Train until the budget is spent; prints a progress bar named ``label``. Raises ValueError for a checkpoint of
        another run."""
        self._resume()
        bar = tqdm(total=self._budget, initial=self._tokens, desc=label, unit="token", unit_scale=True, mininterval=5)
        saved = time.monotonic()
        for batches in self._steps_of_batches() if self._tokens < self._budget else ():
            started = time.monotonic()
            read = self._step(batches)
            self._seconds += time.monotonic() - started
            bar.update(read)
            if self._steps % 20 == 0:
                bar.set_postfix(loss=f"{self._loss:.3f}", step=self._steps, refresh=False)
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            if self._tokens >= self._budget:
                break
        self._save()
        bar.close()
        return TrainingRun(self._steps, self._tokens, self._loss, self._seconds)

    def _steps_of_batches(self) -> Iterator[list[Batch]]:
        while True:
            batches = self._stream.batches(self._chunk)
            while self._place + BATCHES_PER_STEP <= len(batches):
                step = batches[self._place : self._place + BATCHES_PER_STEP]
                self._place += BATCHES_PER_STEP
                yield step
            self._chunk, self._place = self._chunk + 1, 0

    def _step(self, batches: list[Batch]) -> int:
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate()
        total = float(sum(batch.weight[:, 1:].sum() for batch in batches))
        parts = list(self._pool.map(self._part, batches))
        loss = sum(part for part, _ in parts) / total
        for parameter, *gradients in zip(self._parameters, *(gradients for _, gradients in parts), strict=True):
            parameter.grad = sum(gradients[1:], start=gradients[0]).div_(total)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._loss = loss if not self._steps else 0.98 * self._loss + 0.02 * loss
        self._steps += 1
        read = sum(batch.tokens.numel() for batch in batches)
        self._tokens += read
        return read

    def _part(self, batch: Batch) -> tuple[float, tuple[torch.Tensor, ...]]:
        """The loss of one batch and its gradients. They are returned, not added up in place: two threads do this."""
        loss = weighted_loss(self._model, batch)
        return loss.item(), torch.autograd.grad(loss, self._parameters)

    def _rate(self) -> float:
        """Warm-up, plateau, linear decay ("WSD", Hu et al., 2024): a run can be prolonged from its plateau."""
        done = self._tokens / self._budget
        return self._peak * max(min(done / WARM_UP, 1.0, (1 - done) / DECAY), 1e-3)

    def _save(self) -> None:
        state = {
            "identity": self._identity,
            "model": self._model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "place": (self._chunk, self._place, self._steps, self._tokens, self._seconds, self._loss),
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint)  # a run cut here resumes from the old checkpoint, never from half a one

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, map_location=self._model.device)
        if state.get("identity") != self._identity:
            raise ValueError(f"{self._checkpoint} is of another run; --fresh starts anew")
        self._model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._chunk, self._place, self._steps, self._tokens, self._seconds, self._loss = state["place"]


def weighted_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Sum of the cross entropies in nats, times their weights. The head runs only where a token is to be predicted."""
    device = model.device
    tokens, weight = batch.tokens.to(device), batch.weight.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device)):
        # Right padding needs no mask: under causal attention no token before it sees it.
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        counted = weight[:, 1:] > 0
        logits = model.lm_head(hidden[counted])
    losses = functional.cross_entropy(logits.float(), tokens[:, 1:][counted], reduction="none")
    return (losses * weight[:, 1:][counted]).sum()


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast on ``device``. Without the instructions it is ten times slower than float32."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
