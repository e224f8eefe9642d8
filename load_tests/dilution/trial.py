"""One question to one model: how it is put, and whether the reply has the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.api import Conversation, SamplingParams
from engine.engine import Engine
from load_tests.dilution.haystack import Planted
from router.prompts.compress import compress
from router.prompts.prompt_size import prompt_characters
from router.prompts.retrieve_turns import retrieve
from router.prompts.shortened_conversation import ShortenedConversation, ShorteningTask

STUFFING = "stuffing"
SHORTEN: Mapping[str, Callable[[ShorteningTask], ShortenedConversation | None]] = {
    "retrieval": retrieve,
    "compression": compress,
}
STRATEGIES = (STUFFING, *SHORTEN)
ANSWER_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of a question. ``length`` is the size of the notes that was asked for, ``prompt_tokens`` what the
    engine counted, ``seconds`` what the answer took, prefill included. ``found``: the reply has the answer.
    ``in_prompt``: the fact was in the prompt at all."""

    model: str
    strategy: str
    length: int
    depth: float
    found: bool
    in_prompt: bool
    prompt_tokens: int
    seconds: float


def put(planted: Planted, strategy: str, budget: int, tokens_per_character: float) -> Conversation:
    """Returns the conversation that the model gets: whole, or shortened to about ``budget`` tokens. One that cannot be
    shortened so far is returned whole."""
    whole = planted.conversation
    if strategy == STUFFING:
        return whole
    room = int(budget / tokens_per_character)
    if prompt_characters(whole) <= room:
        return whole
    made = SHORTEN[strategy](ShorteningTask(whole, room))
    return whole if made is None else made.conversation


def ask(
    engine: Engine, model: str, planted: Planted, strategy: str, length: int, budget: int, tokens_per_character: float
) -> Trial:
    """Asks once, greedily. Raises ContextLengthError for a prompt that is too long."""
    conversation = put(planted, strategy, budget, tokens_per_character)
    started = time.perf_counter()
    (completion,) = engine.generate([conversation], SamplingParams(temperature=0.0, max_tokens=ANSWER_TOKENS))
    seconds = time.perf_counter() - started
    in_prompt = any(planted.answer in message.content for message in conversation.messages)
    found, tokens = planted.answer in completion.text, completion.usage.prompt_tokens
    return Trial(model, strategy, length, planted.depth, found, in_prompt, tokens, seconds)
