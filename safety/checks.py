"""The checks of requests, by policy. A new check is one file with its class and one line in CHECKS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from safety.api import Action, Check
from safety.classification import ClassifierCheck
from safety.compiled_policy import CompiledPolicy
from safety.phrases.check import PhraseCheck
from safety.pii.check import PiiCheck
from safety.request_size import SizeCheck
from safety.secrets.check import SecretCheck
from safety.structure.check import StructureCheck, StructureSettings


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """A check in the registry.

    ``make`` returns the check by the settings of a policy; None: the policy does not ask for it. ``by_text``: its
    verdicts on a passage depend only on the text and the origin of this passage, so that they may be cached.
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
    return None if sizes.max_characters is None and sizes.scripts is None else SizeCheck(sizes)


def _structure(compiled: CompiledPolicy) -> Check | None:
    band = compiled.policy.structure
    if band is None or (band.block is None and band.review is None):
        return None
    block = NEVER if band.block is None else band.block
    return StructureCheck(StructureSettings(block, block if band.review is None else band.review))


def _pii(compiled: CompiledPolicy) -> Check | None:
    pii = compiled.policy.pii
    if pii.requests == "off":
        return None
    return PiiCheck(Action.BLOCK if pii.requests == "block" else Action.REDACT, pii.counted)


def _secrets(compiled: CompiledPolicy) -> Check | None:
    secrets = compiled.policy.secrets
    if secrets.requests == "off":
        return None
    return SecretCheck(Action.BLOCK if secrets.requests == "block" else Action.REDACT)


NEVER = 2.0
"""A threshold above every score."""

CHECKS: tuple[CheckEntry, ...] = (
    CheckEntry(_classifier),
    CheckEntry(_structure),
    CheckEntry(_phrases),
    CheckEntry(_pii),
    CheckEntry(_secrets),
    CheckEntry(_sizes, by_text=False),
)
