"""How well a model predicts held-out English, in bits per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.models.training.english import Conversation
from deployments.models.training.stream import encode

BATCH = 32


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
