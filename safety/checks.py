"""The checks of requests, by policy. A new check is one file with its class and one line in CHECKS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from safety.api import Action, Check, TextClassifier
from safety.classification import AbsentClassifier, ClassifierCheck, Decode
from safety.policy import PolicyConfig
from safety.request_size import SizeCheck


def _decode_nothing(text: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What checks need beside the policy."""

    classifier: TextClassifier = field(default_factory=AbsentClassifier)
    decode: Decode = _decode_nothing


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """A check in the registry.

    ``make`` returns the check that a policy asks for; None: it does not ask for it. ``by_text``: whether its verdicts
    on a passage depend on the text and the origin of this passage alone, so that they may be remembered.
    """

    make: Callable[[PolicyConfig, Parts], Check | None]
    by_text: bool = True


def _classifier(policy: PolicyConfig, parts: Parts) -> Check | None:
    if not policy.classifies_requests:
        return None
    return ClassifierCheck(policy, parts.classifier, parts.decode, failure_action(policy))


def _sizes(policy: PolicyConfig, parts: Parts) -> Check | None:
    sizes = policy.sizes
    limits = (sizes.max_characters, sizes.max_repetition, sizes.scripts)
    return SizeCheck(sizes) if any(limit is not None for limit in limits) else None


CHECKS: tuple[CheckEntry, ...] = (
    CheckEntry(_classifier),
    CheckEntry(_sizes, by_text=False),
)


def failure_action(policy: PolicyConfig) -> Action:
    """Returns what the verdict of a check that failed asks for."""
    return Action.BLOCK if policy.when_unavailable == "refuse" else Action.ALLOW
