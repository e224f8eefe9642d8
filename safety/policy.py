"""``PolicyConfig``: a tenant's safety policy: the checks of requests and answers, and the actions on their findings.
Unknown keys are refused.

``SafetyPolicies`` has the policy of each tenant, and one for all others. A policy has a version, the hash of its
content, which every ledger entry and audit record names. The policies of the single checks are in ``check_policies``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from safety.api import Origin, TextUse
from safety.check_policies import (
    Band,
    ContentPolicy,
    DocumentBand,
    InjectionPolicy,
    PhrasePolicy,
    PiiPolicy,
    RatePolicy,
    RetrievalPolicy,
    ReviewPolicy,
    SecretPolicy,
    Settings,
    SizePolicy,
    ToolRule,
)


class PolicyConfig(Settings):
    """The safety policy of a tenant."""

    content: ContentPolicy | None = ContentPolicy()
    """Harmful content in requests. None: it is not looked for."""
    content_answers: ContentPolicy | None = ContentPolicy(block=0.85, review=None)
    """Harmful content in answers. None: it is not looked for."""
    injection: InjectionPolicy = InjectionPolicy()
    """Prompt injections and jailbreaks."""
    structure: Band | None = Band()
    """Signs in the form of a text: role markers, hidden characters, repetition, mixed scripts. None: they are not
    looked for. In documents, ``injection.documents.action`` says what follows. Encoded texts are decoded and
    classified in any case."""
    phrases: PhrasePolicy = PhrasePolicy()
    """Phrases that are blocked and allowed."""
    pii: PiiPolicy = PiiPolicy()
    """Personal data."""
    secrets: SecretPolicy = SecretPolicy()
    """Keys, tokens and passwords."""
    prompt_leak: Literal["off", "block"] = "off"
    """What follows when an answer repeats the system prompt."""
    prompt_canary: Literal["off", "block"] = "off"
    """Whether a line with a secret word is added to the last system message, and what follows when an answer has the
    word, in whatever disguise: it has repeated the prompt then. The line takes about 25 tokens."""
    tools: tuple[ToolRule, ...] = ()
    """Rules for tools by role. A tool to which no rule applies is allowed; end the list with ``action: deny`` to allow
    only what is listed."""
    retrieval: RetrievalPolicy = RetrievalPolicy()
    """Texts that no model answers: embeddings, and documents of collections."""
    unchecked: tuple[Origin, ...] = ()
    """Origins whose texts no check reads, such as ``tool`` where the descriptions of tools are the operator's own."""
    sizes: SizePolicy = SizePolicy()
    """Requests of unusual size or make."""
    rate: RatePolicy = RatePolicy()
    """Keys whose requests are blocked again and again."""
    stream: Literal["hold", "beside"] = "hold"
    """How answers are classified: ``hold`` sends a text after its classification, so that nothing flagged is sent;
    ``beside`` sends it meanwhile and ends the answer a little later. What patterns find is held back in both."""
    halts: Literal["choice", "request"] = "choice"
    """What a verdict on an answer ends: its choice, or all choices of the request (``n``), which also ends the engine's
    work on them at once."""
    when_unavailable: Literal["refuse", "pass"] = "refuse"
    """What follows when a check fails or takes too long: a 503, or an answer that is marked ``unscanned``."""
    deadline_s: float = Field(2.0, gt=0, le=60)
    """Seconds that the checks of a request, which run side by side, may take. One that takes longer has failed."""
    deadline_s_per_1000_characters: float = Field(0.3, ge=0, le=60)
    """Seconds added for each 1,000 characters that are read. With one deadline for all, every long prompt would be
    late."""
    earlier_turns: Literal["block", "drop"] = "block"
    """What follows where all that a request is blocked for lies in earlier turns of its conversation: in messages of
    the user before the last one, and in the answers, calls and results up to the next one. ``block`` blocks the
    request: a client that sends a blocked message again with each later one gets no answer any more. ``drop`` leaves
    these turns out of what the model sees, each whole, and the request goes on, unless they are more than eight. What
    ``review: {action: refuse}`` refuses is blocked in this sense; with ``queue`` and ``wait`` a person decides on it
    first."""
    speculative_generation: bool = False
    """Whether the engine begins to answer while the request is checked. Nothing of the answer is sent before the checks
    have ended. The first token then comes after the longer of both, and not after both. If the checks refuse or change
    the request, the engine's work is aborted and not billed. No request is begun so if the answer cache may have its
    answer, with ``prompt_canary``, nor where personal data or secrets are taken out of requests, which the model must
    not see."""
    on_block: Literal["error", "answer"] = "error"
    """How a blocked request is answered: by an error with status 400, or by an answer that has the refusal as its text
    and ``content_filter`` as its finish reason."""
    refusal: Annotated[str, Field(min_length=1, max_length=1000)] = "This request is not allowed by the content policy."
    """What the client reads where a request or an answer is blocked."""
    review: ReviewPolicy = ReviewPolicy()
    """Requests that a person should decide on."""
    audit: Literal["all", "found"] = "found"
    """Which checks the audit log has a record of: all that ran, or those that found something or failed."""
    audit_text: Literal["none", "hmac"] = "none"
    """What the audit log holds of a text: nothing, or a keyed hash that finds equal texts."""

    def deadline(self, characters: int) -> float:
        """Returns the deadline in seconds of a check of ``characters`` characters."""
        return self.deadline_s + self.deadline_s_per_1000_characters * characters / 1000

    def for_use(self, use: TextUse) -> PolicyConfig:
        """Returns the policy as it applies to texts of this use, which has fewer checks if no model answers them."""
        return self if use is TextUse.GENERATION else self._by_use[use]

    @cached_property
    def _by_use(self) -> Mapping[TextUse, PolicyConfig]:
        return {use: _narrowed(self, use) for use in TextUse if use is not TextUse.GENERATION}

    @cached_property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the policy as JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def rewrites_requests(self) -> bool:
        """Whether the policy changes texts of requests that it allows."""
        patterns = {self.pii.requests, self.secrets.requests}
        return self.prompt_canary != "off" or not patterns <= {"off", "block"}

    @property
    def classifies_requests(self) -> bool:
        """Whether the policy needs a classifier for requests."""
        injection = self.injection
        bands = (self.content, injection.user, injection.documents, injection.system)
        return any(each is not None for each in bands)

    @property
    def classifies(self) -> bool:
        """Whether the policy needs a classifier for requests or answers."""
        return self.classifies_requests or self.content_answers is not None


class SafetyPolicies(Settings):
    """The policies of all tenants."""

    default: PolicyConfig = PolicyConfig()
    """The policy of tenants that have none of their own."""
    tenants: dict[str, PolicyConfig] = Field(default_factory=dict)
    """Policies of tenants, by name. Each is whole: it takes nothing from the default."""

    def of(self, tenant: str) -> PolicyConfig:
        """Returns the policy of a tenant."""
        return self.tenants.get(tenant, self.default)

    def named(self) -> Iterator[tuple[str, PolicyConfig]]:
        """Yields each policy with the name of its setting."""
        yield "default", self.default
        for tenant, policy in self.tenants.items():
            yield f"tenants.{tenant}", policy


NO_INJECTION = InjectionPolicy(user=None, documents=None, system=None)


def _narrowed(policy: PolicyConfig, use: TextUse) -> PolicyConfig:
    """Returns the policy with the checks alone that it asks for of texts that no model answers."""
    chosen = policy.retrieval
    pii, secrets = policy.pii, policy.secrets
    content = policy.content_answers if use is TextUse.RESULT else policy.content
    changes: dict[str, Any] = {
        "content": content if chosen.content else None,
        "content_answers": None,
        "injection": _injection(policy.injection, use) if chosen.injection else NO_INJECTION,
        "structure": policy.structure if chosen.injection else None,
        "phrases": policy.phrases if chosen.patterns else PhrasePolicy(),
        "pii": PiiPolicy(requests=_action(pii, use), kinds=pii.kinds) if chosen.patterns else PiiPolicy(),
        "secrets": SecretPolicy(requests=_action(secrets, use)) if chosen.patterns else SecretPolicy(),
        "prompt_leak": "off",
        "prompt_canary": "off",
        "tools": (),
        "sizes": _sizes(policy.sizes, use) if chosen.content or chosen.injection else SizePolicy(max_characters=None),
    }
    # Not model_copy, which takes the cached version along.
    return PolicyConfig(**{name: getattr(policy, name) for name in PolicyConfig.model_fields} | changes)


def _action(patterns: PiiPolicy | SecretPolicy, use: TextUse) -> Any:
    """Returns what follows personal data, or secrets, in texts of this use."""
    if use is TextUse.RESULT:
        return patterns.answers
    if use is TextUse.STORAGE:
        return "block" if patterns.requests == "block" else "off"
    return "redact" if patterns.requests == "pseudonymise" else patterns.requests


def _sizes(sizes: SizePolicy, use: TextUse) -> SizePolicy:
    """Returns the limits on texts of this use. Results are bounded by the search, and are no request of unusual
    size."""
    return sizes.model_copy(update={"max_characters": None}) if use is TextUse.RESULT else sizes


def _injection(injection: InjectionPolicy, use: TextUse) -> InjectionPolicy:
    """Returns the policy on injections in texts of this use. A document that is stored is not changed."""
    band = injection.documents
    if use is not TextUse.STORAGE or band is None or band.action == "review":
        return injection
    return InjectionPolicy(user=injection.user, documents=DocumentBand(threshold=band.threshold), system=None)
