"""Refuses prompts that no model could read to their end, before anything else reads them. Pure.

The router has no tokenizer, and the engine counts exactly. But the checks of a text take far longer than counting it.
"""

from __future__ import annotations

import re

from engine.api import Conversation, Prompt
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest

MAX_CHARACTERS_PER_TOKEN = 16
"""Characters of a token, on average over a prompt. English has 4 to 5. Runs of one character, of which a token may have
a hundred, count as one."""

RUN = re.compile(r"(.)\1+", re.DOTALL)


def check_prompt_lengths(request: InferenceRequest, context_length: int | None) -> None:
    """Raises InvalidRequestError for a prompt with too many characters to fit into a context of ``context_length``
    tokens; None: the length is unknown, and nothing is checked. The engine checks prompts of token ids."""
    if context_length is None:
        return
    limit = MAX_CHARACTERS_PER_TOKEN * context_length
    for prompt in request.prompts:
        if not _fits(prompt, limit):
            message = (
                f"This model's maximum context length is {context_length} tokens. However, "
                f"your prompt has more than {limit} characters."
            )
            raise InvalidRequestError(message, "context_length_exceeded", request.prompt_field)


def _fits(prompt: Prompt, limit: int) -> bool:
    """Whether the text of a prompt has at most ``limit`` characters. Of a conversation only the contents count, since a
    template may leave out the rest."""
    if isinstance(prompt, tuple):
        return True
    texts = [message.content for message in prompt.messages] if isinstance(prompt, Conversation) else [prompt]
    if sum(map(len, texts)) <= limit:
        return True
    return sum(len(RUN.sub(r"\1", text)) for text in texts) <= limit
