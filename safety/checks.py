"""The checks of requests, by policy. A new check is one file with its class and one line in CHECKS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from safety.api import Check
from safety.classification import ClassifierCheck
from safety.compiled_policy import CompiledPolicy
from safety.phrases.check import PhraseCheck
from safety.request_size import SizeCheck


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """A check in the registry.

    ``make`` returns the check that a policy asks for; None: it does not ask for it. ``by_text``: whether its verdicts
    on a passage depend on the text and the origin of this passage alone, so that they may be remembered.
    """

    make: Callable[[CompiledPolicy], Check | None]
    by_text: bool = True


def _classifier(compiled: CompiledPolicy) -> Check | None:
    policy = compiled.policy
    if not policy.classifies_requests:
        return None
    return ClassifierCheck(policy, compiled.classifier, compiled.parts.decode, compiled.failure_action)


def _phrases(compiled: CompiledPolicy) -> Check | None:
    return None if compiled.phrases is None else PhraseCheck(compiled.phrases)


def _sizes(compiled: CompiledPolicy) -> Check | None:
    sizes = compiled.policy.sizes
    limits = (sizes.max_characters, sizes.max_repetition, sizes.scripts)
    return SizeCheck(sizes) if any(limit is not None for limit in limits) else None


CHECKS: tuple[CheckEntry, ...] = (
    CheckEntry(_classifier),
    CheckEntry(_phrases),
    CheckEntry(_sizes, by_text=False),
)
