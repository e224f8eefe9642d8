"""How good a model is: exact match on the held-out set, bits per byte on held-out English."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.models.training.curriculum.task import Turn, is_right
from deployments.models.training.english import Conversation
from deployments.models.training.heldout import Item
from deployments.models.training.stream import encode
from engine import Engine, SamplingParams
from engine.api import Conversation as Asked
from engine.api import EngineError, Message

MAX_TOKENS = 96  # of an answer; the longest right one has fewer
BATCH = 32


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers of ``asked``."""

    right: int
    asked: int

    @property
    def percent(self) -> float:
        """Exact match in percent."""
        return 100 * self.right / self.asked


Scores = dict[tuple[str, int], Score]


def answer_all(directory: Path, conversations: Sequence[tuple[Turn, ...]], max_tokens: int = MAX_TOKENS) -> list[str]:
    """What the model in ``directory`` says to each, greedily, through the engine."""
    engine = Engine.from_pretrained(str(directory), dtype="float32")
    prompts = [Asked(tuple(Message(turn.role, turn.content) for turn in turns)) for turns in conversations]
    answers = engine.generate(prompts, SamplingParams(temperature=0.0, max_tokens=max_tokens))
    failed = next((answer.error for answer in answers if answer.error is not None), None)
    if failed is not None:
        raise EngineError(f"an answer failed, which is no wrong answer: {failed}")
    return [answer.text for answer in answers]


def score(items: Sequence[Item], replies: Sequence[str]) -> Scores:
    """By family and level."""
    counted: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for item, reply in zip(items, replies, strict=True):
        counted[item.family, item.level][0] += is_right(reply, item.answer)
        counted[item.family, item.level][1] += 1
    return {cell: Score(right, asked) for cell, (right, asked) in counted.items()}


def total(scores: Scores, family: str | None = None, level: int | None = None) -> Score:
    """All of ``scores``, or those of a family or a level."""
    chosen = [s for (f, n), s in scores.items() if family in (None, f) and level in (None, n)]
    return Score(sum(s.right for s in chosen), sum(s.asked for s in chosen))


@torch.no_grad()
def bits_per_byte(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, conversations: Sequence[Conversation]
) -> float:
    """Of the answers in ``conversations``, their end marks included: -log2 of their probability over their bytes."""
    rows = sorted(encode(tokenizer, [(turns, 1.0) for turns in conversations]), key=lambda row: len(row[0]))
    nats = 0.0
    for start in range(0, len(rows), BATCH):
        group = rows[start : start + BATCH]
        longest = len(group[-1][0])
        tokens = torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in group])
        weight = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in group])[:, 1:]
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
        losses = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        nats += float((losses.view_as(weight) * weight).sum())
    size = sum(len(turn.content.encode()) for turns in conversations for turn in turns if turn.role == "assistant")
    return nats / math.log(2) / size
