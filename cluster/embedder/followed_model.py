"""``FollowedModel``: the model whose vectors a process compares, while replicas with another one take over. Pure.

Indexes and stored vectors belong to one model. During a rolling update replicas of two models answer in turn, and to go
over to the model of each reply would make everything anew again and again. So a process goes over once: when only the
other model has answered, for some seconds and some replies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FOLLOW_AFTER_S = 5.0
"""Seconds between the first and the last of the replies by the other model alone. Serve replaces a replica in less."""
FOLLOW_AFTER_REPLIES = 8
"""Where both models answer the same number of calls, one of them gives eight replies in a row once in 256 calls."""
FOLLOW_SELDOM_S = 60.0
"""Seconds after which two replies are enough: a process with few calls goes over too, at most once in this time."""


@dataclass(frozen=True, slots=True)
class FollowedModel:
    """The followed ``model``. ``confirmed``: it has answered, so that it is not merely expected. ``other`` is another
    model that has given the last ``replies`` replies, since the instant ``since_s``; None: ``model`` gave the last."""

    model: str
    confirmed: bool = False
    other: str | None = None
    replies: int = 0
    since_s: float = 0.0

    def after(self, model: str, now_s: float) -> FollowedModel:
        """Returns the state after a reply by ``model`` at ``now_s``, in seconds of a clock that never goes back."""
        if model == self.model or not self.confirmed:
            return FollowedModel(model, confirmed=True)
        if model != self.other:
            return replace(self, other=model, replies=1, since_s=now_s)
        replies, took_s = self.replies + 1, now_s - self.since_s
        if took_s >= FOLLOW_SELDOM_S or (took_s >= FOLLOW_AFTER_S and replies >= FOLLOW_AFTER_REPLIES):
            return FollowedModel(model, confirmed=True)
        return replace(self, replies=replies)
