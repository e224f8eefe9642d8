"""``CanaryKey``: the key of the canary tokens in system prompts, the same for all routers.

A prompt with the token is what an answer is stored under. Routers with keys of their own would share no answer.
"""

from __future__ import annotations

import secrets

from router.review.review_keys import ReviewKeys

KEY_BYTES = 32


class CanaryKey:
    """Returns the key at each call. It is derived from the secret that routers share; until a router knows that,
    because the store does not answer, it has a random key of its own."""

    def __init__(self, keys: ReviewKeys) -> None:
        self._keys = keys
        self._own = secrets.token_bytes(KEY_BYTES)

    def __call__(self) -> bytes:
        keys = self._keys.at_once()
        return self._own if keys is None else keys.canaries
