"""The types of inline moderation: OpenAI's request member ``moderation``, which asks for the scores of the request's
texts and of its answers beside the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safety.api import Moderation


@dataclass(frozen=True, slots=True)
class ModerationSettings:
    """The settings of inline moderation in a request. ``check_model`` takes the name of the service's classifier, and
    raises NotFoundError unless the request's ``model`` stands for it.

    ``block_input`` refuses a request that is flagged; ``block_output`` holds the answers until they are scored, and
    replaces those that are flagged. Without them, the scores are sent and nothing is blocked.
    """

    check_model: Callable[[str], None]
    block_input: bool = False
    block_output: bool = False


@dataclass(frozen=True, slots=True)
class ModerationResults:
    """The results of the classifier ``model``: one for each prompt, or for each choice. ``failed``: the classifier did
    not answer, and there are no results."""

    model: str
    results: Sequence[Moderation] = ()
    failed: bool = False

    @property
    def flagged(self) -> bool:
        """Whether at least one of the texts is flagged."""
        return any(each.flagged for each in self.results)
