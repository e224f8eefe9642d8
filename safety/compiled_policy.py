"""``CompiledPolicy``: a policy with the objects that its checks share, such as compiled phrase lists."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from safety.api import Action, TextClassifier
from safety.check_policies import PhrasePolicy
from safety.classification import AbsentClassifier, BoundedClassifier, Decode
from safety.patterns.recogniser import Recogniser
from safety.phrases.automaton import PhraseAutomaton
from safety.phrases.phrase import Phrase, is_literal
from safety.pii.kinds import recognisers_of
from safety.policy import PolicyConfig
from safety.streaming.recent_checks import RecentChecks
from safety.structure.payloads import decoded

MAX_AUTOMATONS = 256  # compiled lists of phrases that are kept
MAX_BANNED = 64
"""Phrases that the engine must not write. It compares each with every token."""


def decoded_texts(text: str) -> Sequence[str]:
    """Returns the texts that are encoded within ``text``."""
    return [part.text for part in decoded(text)]


def random_key() -> Callable[[], bytes]:
    """Returns a function that returns the same random key at each call."""
    key = secrets.token_bytes(32)
    return lambda: key


@dataclass(frozen=True, slots=True)
class Parts:
    """The dependencies of checks beside the policy. ``canary_key`` returns the present key of the canary tokens. Guards
    that share stored answers must have the same one: the token is a part of the prompt."""

    classifier: TextClassifier = field(default_factory=AbsentClassifier)
    decode: Decode = decoded_texts
    canary_key: Callable[[], bytes] = field(default_factory=random_key, repr=False)


@dataclass(frozen=True)
class CompiledPolicy:
    """The policy of one tenant, with the checks and lists that are made from it once instead of for each request."""

    policy: PolicyConfig
    parts: Parts
    tenant: str = ""

    @property
    def failure_action(self) -> Action:
        """The action of the verdict of a check that failed."""
        return failure_action(self.policy)

    @cached_property
    def classifier(self) -> TextClassifier:
        """The classifier, with the deadline of the policy."""
        return BoundedClassifier(self.parts.classifier, self.policy.deadline, self.tenant)

    @cached_property
    def recent_checks(self) -> RecentChecks:
        """The durations of the classifier's checks of this tenant's answers."""
        return RecentChecks()

    @cached_property
    def banned(self) -> tuple[str, ...]:
        """The blocked phrases that an engine can ban exactly; () if an allowed phrase may contain one."""
        listed = self.policy.phrases
        return () if listed.allow else tuple(filter(is_literal, listed.block))[:MAX_BANNED]

    @cached_property
    def answer_pii(self) -> Sequence[Recogniser]:
        """The recognisers of personal data in answers; empty if the policy does not look for it."""
        pii = self.policy.pii
        return () if pii.answers == "off" else recognisers_of(pii.counted)

    @cached_property
    def phrases(self) -> PhraseAutomaton | None:
        """The compiled lists of phrases; None if no phrase is blocked."""
        return automaton(self.policy.phrases) if self.policy.phrases.block else None


@lru_cache(maxsize=MAX_AUTOMATONS)
def automaton(listed: PhrasePolicy) -> PhraseAutomaton:
    """Returns the compiled lists, which tenants share."""
    return PhraseAutomaton([Phrase(text) for text in listed.block], listed.allow)


def failure_action(policy: PolicyConfig) -> Action:
    """Returns the action of the verdict of a check that failed."""
    return Action.BLOCK if policy.when_unavailable == "refuse" else Action.ALLOW
