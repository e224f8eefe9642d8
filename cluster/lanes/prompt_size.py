"""``PromptSize``: how many tokens a prompt has, by its characters and what replicas have counted. Pure.

The router does not tokenise. Characters for each token depend on the language and the tokenizer, so they are learnt
from the usage of requests that have ended.
"""

from __future__ import annotations

from engine.api import Conversation, GenerationRequest

CHARACTERS_PER_TOKEN = 4.0
"""Until something was counted."""

MEMORY = 0.99
"""Factor of what was counted before, with each request."""


def characters(request: GenerationRequest) -> int:
    """Returns the length of the request's prompt in characters; 0 if it is given as token ids."""
    prompt = request.prompt
    if isinstance(prompt, tuple):
        return 0
    return prompt.characters if isinstance(prompt, Conversation) else len(prompt)


class PromptSize:
    """The estimate for one tier."""

    def __init__(self) -> None:
        self._tokens = 1.0
        self._characters = CHARACTERS_PER_TOKEN

    @property
    def tokens_per_character(self) -> float:
        """The estimated number of tokens of a character."""
        return self._tokens / self._characters

    def tokens(self, request: GenerationRequest) -> int:
        """Returns the estimated number of prompt tokens, at least 1; those that are resumed are among them."""
        prompt = request.prompt
        own = len(prompt) if isinstance(prompt, tuple) else characters(request) * self.tokens_per_character
        return max(1, round(own) + len(request.resume))

    def observe(self, request: GenerationRequest, prompt_tokens: int) -> None:
        """Records the number of prompt tokens that a replica has counted. Prompts of token ids and resumed requests are
        ignored."""
        length = characters(request)
        if length and prompt_tokens > 0 and not request.resume:
            self._tokens = MEMORY * self._tokens + prompt_tokens
            self._characters = MEMORY * self._characters + length
