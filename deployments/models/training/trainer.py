"""The training loop: packed conversations, AdamW with warm-up and cosine decay, resumable by wall-clock budget."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import LlamaForCausalLM

BATCH, LENGTH = 4, 256  # sequences and tokens of one step: small, since budgets are minutes and steps are what count
WARM_UP = 0.03  # part of the budget
HELD_OUT = 64  # sequences of LENGTH tokens never trained on


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a run did. ``loss`` is in nats per token on held-out conversations."""

    steps: int
    tokens: int
    loss: float
    seconds: float


class Trainer:
    """Trains ``model`` on ``tokens`` (1-D int64, conversations end to end) for ``seconds`` of wall clock.

    The learning rate follows the part of the budget spent, so that any budget ends in a finished decay. The state is
    saved to ``checkpoint`` every half minute; a run that finds one goes on from there.
    """

    def __init__(
        self, model: LlamaForCausalLM, tokens: torch.Tensor, *, seconds: float, peak: float, checkpoint: Path, seed: int
    ) -> None:
        rows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
        self._held_out, self._rows = rows[:HELD_OUT], rows[HELD_OUT:]
        self._model = model
        self._seconds = seconds
        self._peak = peak
        self._checkpoint = checkpoint
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
        self._generator = torch.Generator().manual_seed(seed)
        self._spent = 0.0
        self._steps = 0

    def run(self, label: str) -> TrainingRun:
        """Train until the budget is spent; prints a progress bar named ``label``."""
        self._resume()
        bar = tqdm(total=round(self._seconds), initial=round(self._spent), desc=label, unit="s")
        saved = self._spent
        while self._spent < self._seconds:
            started = time.monotonic()
            loss = self._step()
            self._spent += time.monotonic() - started
            self._steps += 1
            bar.update(round(self._spent) - bar.n)
            if self._steps % 20 == 0:
                bar.set_postfix(loss=f"{loss:.3f}", step=self._steps)
            if self._spent - saved > 30:
                self._save()
                saved = self._spent
        bar.close()
        return TrainingRun(self._steps, self._steps * BATCH * LENGTH, self.evaluate(), self._spent)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss on the held-out rows, nats per token."""
        return sum(self._loss(rows).item() for rows in self._held_out.split(BATCH)) / math.ceil(HELD_OUT / BATCH)

    def _step(self) -> float:
        rate = self._rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        picked = torch.randint(len(self._rows), (BATCH,), generator=self._generator)
        loss = self._loss(self._rows[picked])
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        return loss.item()

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self._model(input_ids=rows[:, :-1]).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    def _rate(self) -> float:
        done = self._spent / self._seconds
        if done < WARM_UP:
            return self._peak * max(done / WARM_UP, 0.02)
        return self._peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

    def _save(self) -> None:
        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "spent": self._spent,
            "steps": self._steps,
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint)  # a run cut here resumes from the old checkpoint, never from half a one

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._spent, self._steps = state["spent"], state["steps"]
