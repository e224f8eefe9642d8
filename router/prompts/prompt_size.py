"""The size of messages and prompts, in characters and in estimated tokens. Pure.

A router has no tokenizers. It knows how many tokens a character takes on each tier, from requests that have finished
(``router.limits.usage_estimator``), and adds CHARACTERS_PER_MESSAGE for the text that a chat template writes around a
message.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.api import Conversation, Message, Prompt

CHARACTERS_PER_MESSAGE = 16  # as the limiter counts them


def message_characters(message: Message) -> int:
    """Returns the number of characters of all texts of a message, and of the template's text around it."""
    return sum(map(len, message.texts)) + CHARACTERS_PER_MESSAGE


def other_characters(conversation: Conversation) -> int:
    """Returns the number of characters of a conversation outside its messages: tools, template variables, the answer's
    opening."""
    variables = sum(len(name) + len(value) for name, value in conversation.template_kwargs)
    return sum(map(len, conversation.tools)) + variables + CHARACTERS_PER_MESSAGE


def prompt_characters(prompt: Prompt) -> int:
    """Returns the number of characters of a prompt; 0 for token ids."""
    if isinstance(prompt, Conversation):
        return other_characters(prompt) + sum(map(message_characters, prompt.messages))
    return 0 if isinstance(prompt, tuple) else len(prompt) + CHARACTERS_PER_MESSAGE


@dataclass(frozen=True, slots=True)
class TokensPerCharacter:
    """Converts characters to tokens on a tier, by two ratios of tokens per character: the mean, and one that few texts
    exceed."""

    mean: float
    high: float

    def tokens(self, characters: int) -> int:
        """Returns the estimated number of tokens of ``characters`` characters, by the mean ratio, rounded up."""
        return math.ceil(characters * self.mean)

    def prompt_tokens(self, prompt: Prompt) -> int:
        """Returns the estimated number of tokens of a prompt, by the mean ratio. For token ids it is exact."""
        return len(prompt) if isinstance(prompt, tuple) else self.tokens(prompt_characters(prompt))

    def fits(self, prompt: Prompt, tokens: int) -> bool:
        """Returns whether a prompt has at most ``tokens`` tokens, by the ratio that few texts exceed."""
        return len(prompt) <= tokens if isinstance(prompt, tuple) else prompt_characters(prompt) <= self.room(tokens)

    def room(self, tokens: int) -> int:
        """Returns the number of characters that fit into ``tokens`` tokens, by the ratio that few texts exceed."""
        return math.floor(max(0, tokens) / self.high)
