"""``validated_at_once``: whether a replica can validate a request on its event loop. Pure."""

from __future__ import annotations

from engine.api import Conversation, GenerationRequest

MAX_INLINE_PROMPT = 8192  # characters; more take over 1 ms to tokenise, which is then done off the event loop


def validated_at_once(request: GenerationRequest) -> bool:
    """Returns whether a replica takes at most about a millisecond to validate ``request``, so that other requests can
    wait for it. A grammar may take seconds to compile."""
    return request.sampling.grammar is None and _validation_size(request) <= MAX_INLINE_PROMPT


def _validation_size(request: GenerationRequest) -> int:
    """Returns how much must be tokenised and validated before the request can be queued, in characters or token ids."""
    sampling = request.sampling
    words = 2 * sum(map(len, sampling.bad_words))
    return _prompt_length(request) + words + len(sampling.allowed_token_ids or ()) + len(sampling.logit_bias)


def _prompt_length(request: GenerationRequest) -> int:
    """Returns the length of the prompt, in characters or token ids."""
    if isinstance(request.prompt, Conversation):
        return request.prompt.characters
    return len(request.prompt)
