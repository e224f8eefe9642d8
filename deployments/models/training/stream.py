"""An endless stream of training batches: fresh tasks and English, encoded, grouped by length.

The stream is a function of the seed: chunk ``n`` is the same whenever it is made, so a run that was cut goes on with
the very batch it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from deployments.models.training.curriculum import HARD, draw_copying, draw_recall, draw_tasks
from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.english import Conversation

CHUNK = 6144  # conversations made at a time
# Chunks of nothing else for a new model: it learns to look back, and then to look something up, many times sooner than
# in the mixture.
COPYING_FIRST, RECALL_FIRST = 2, 3
BEGINNING = COPYING_FIRST + RECALL_FIRST
CHATS = 0.01  # of the conversations: several tasks one after another, so that long contexts are not foreign
ENGLISH_WEIGHT = 0.5  # of a token in the loss: the answers to tasks are short, and would drown
MAX_TASK_TOKENS = 1000  # tokens


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a tier reads after its beginning: of the conversations so many are ``english``, so many more ``recall``
    (pairs in another order, and many questions about one text), the rest tasks, their families by ``shares``."""

    english: float
    recall: float
    shares: Mapping[str, float] | None = None


# What is soon learnt is not told again and again to a tier that has it from the one below.
FIRST = Mixture(english=0.15, recall=0.12)
GROWN = Mixture(english=0.14, recall=0.06, shares=HARD)


@dataclass(frozen=True, slots=True)
class Batch:
    """``tokens`` int64 [rows, length], padded on the right; ``weight`` float32 [rows, length], how much predicting that
    token counts, 0 for what is read only."""

    tokens: torch.Tensor
    weight: torch.Tensor


class Stream:
    """Batches of at most ``batch_tokens`` tokens, padding included. ``first`` is the number of the first chunk: a model
    that can copy already starts behind those that teach it."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        english: Sequence[Conversation],
        *,
        batch_tokens: int,
        seed: int | str,
        first: int = 0,
        mixture: Mixture = FIRST,
    ) -> None:
        self._tokenizer = tokenizer
        self._english = english
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._mix = mixture
        self.first = first

    def batches(self, chunk: int) -> list[Batch]:
        """All batches of ``chunk``, in an order that mixes lengths."""
        order = random.Random(f"{self._seed}/{chunk}/order")
        weighted = self._beginning(chunk) if chunk < BEGINNING else self._mixture(chunk, order)
        rows = sorted(encode(self._tokenizer, weighted), key=lambda row: len(row[0]))
        batches = [
            self._padded(group) for group in self._grouped([row for row in rows if len(row[0]) <= MAX_TASK_TOKENS])
        ]
        order.shuffle(batches)
        return batches

    def _beginning(self, chunk: int) -> list[tuple[Conversation, float]]:
        seed = f"{self._seed}/{chunk}"
        if chunk < COPYING_FIRST:
            return [(_whole(task), 1.0) for task in draw_copying(CHUNK, seed)]
        return [(talk, 1.0) for talk in draw_recall(CHUNK, seed)]

    def _mixture(self, chunk: int, order: random.Random) -> list[tuple[Conversation, float]]:
        seed = f"{self._seed}/{chunk}"
        mix = self._mix
        drawn = order.sample(self._english, min(len(self._english), round(CHUNK * mix.english)))
        tasks = list(draw_tasks(CHUNK - len(drawn), seed, shares=mix.shares))
        chats = [_chat(order.sample(tasks, order.randint(4, 10))) for _ in range(round(CHUNK * CHATS))]
        recalled = draw_recall(round(CHUNK * mix.recall), f"{seed}/recall")
        counted = [*map(_whole, tasks), *chats, *recalled]
        return [(turns, ENGLISH_WEIGHT) for turns in drawn] + [(talk, 1.0) for talk in counted]

    def _grouped(self, rows: list[tuple[list[int], list[float]]]) -> Iterator[list[tuple[list[int], list[float]]]]:
        """Rows of similar length; they come sorted, so the last is the longest."""
        group: list[tuple[list[int], list[float]]] = []
        for row in rows:
            if group and (len(group) + 1) * len(row[0]) > self._batch_tokens:
                yield group
                group = []
            group.append(row)
        yield group

    def _padded(self, rows: list[tuple[list[int], list[float]]]) -> Batch:
        longest = len(rows[-1][0])
        pad = self._tokenizer.pad_token_id
        tokens = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
        weight = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in rows])
        return Batch(tokens, weight)


def encode(
    tokenizer: PreTrainedTokenizerFast, conversations: list[tuple[Conversation, float]]
) -> list[tuple[list[int], list[float]]]:
    """Token ids as the chat template gives them, and what predicting each counts: the given weight in what the
    assistant says and at its end, otherwise 0."""
    contents = [turn.content for turns, _ in conversations for turn in turns]
    encoded = iter(tokenizer.backend_tokenizer.encode_batch_fast(contents, add_special_tokens=False))
    special: Callable[[str], Any] = tokenizer.convert_tokens_to_ids
    start, end = int(special("<|bos|>")), int(special("<|end|>"))
    roles = {role: int(special(f"<|{role}|>")) for role in ("system", "user", "assistant")}
    rows = []
    for turns, weight in conversations:
        ids, weights = [start], [0.0]
        for turn in turns:
            content = next(encoded).ids
            counts = weight if turn.role == "assistant" else 0.0
            ids += [roles[turn.role], *content, end]
            weights += [0.0, *[counts] * (len(content) + 1)]
        rows.append((ids, weights))
    return rows


def _whole(task: Task) -> Conversation:
    return (*task.turns, Turn("assistant", task.reply))


def _chat(tasks: list[Task]) -> Conversation:
    """Several tasks in one conversation; a system prompt would bind them all, so those with one are left out."""
    return tuple(turn for task in tasks if task.turns[0].role != "system" for turn in _whole(task))
