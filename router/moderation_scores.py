"""The types of inline moderation: OpenAI's request member ``moderation``, which asks for the scores of the request's
texts and of its answers beside the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safety.api import Moderation


@dataclass(frozen=True, slots=True)
class ModerationSettings:
    """What a request asks for. ``check_model`` takes the name of the classifier, and raises NotFoundError unless the
    request means it.

    ``block_input`` refuses a request that is flagged; ``block_output`` holds the answers until they are scored, and
    replaces those that are flagged. Otherwise the scores are sent, and nothing follows.
    """

    check_model: Callable[[str], None]
    block_input: bool = False
    block_output: bool = False


@dataclass(frozen=True, slots=True)
class ModerationResults:
    """What the classifier ``model`` says: a result for each prompt, or for each choice. ``failed``: it did not answer,
    and there are none."""

    model: str
    results: Sequence[Moderation] = ()
    failed: bool = False

    @property
    def flagged(self) -> bool:
        """Whether one of the texts is."""
        return any(each.flagged for each in self.results)
