"""``PolicyConfig``: a tenant's safety policy: the checks of requests and answers, and the actions on their findings.
Unknown keys are refused.

``SafetyPolicies`` has the policy of each tenant, and one for all others. A policy has a version, the hash of its
content, which every ledger entry and audit record names. Scores are calibrated probabilities between 0 and 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from safety.api import Origin, TextUse
from safety.blocked_rate import MAX_TIMES
from safety.phrases.phrase import compile_phrase
from safety.pii.kinds import DEFAULT_KINDS, recognisers_of

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Phrase = Annotated[str, Field(min_length=1, max_length=256)]
Phrases = Annotated[tuple[Phrase, ...], Field(max_length=10_000)]
Kind = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


USERS_BEFORE_KEY = 10
"""The users of a key that may be shut out before the key is, unless a policy says otherwise."""


class Settings(BaseModel):
    """The base of all settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Band(Settings):
    """The scores from which a text is reviewed and blocked. None: never."""

    block: Probability | None = 0.85
    """The score from which a text is blocked."""
    review: Probability | None = 0.6
    """The score from which a person decides, if the text is not blocked."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.block is not None and self.review is not None and self.review > self.block:
            raise ValueError("review must not be above block")
        return self


class ContentPolicy(Band):
    """The policy on harmful content, by the categories of OpenAI's moderation API."""

    categories: dict[Annotated[str, Field(pattern=r"^[a-z][a-z/-]{0,63}$")], Band] = Field(default_factory=dict)
    """Other bands for single categories, such as ``self-harm/intent``."""

    def band(self, category: str) -> Band:
        """Returns the band of a category."""
        return self.categories.get(category, self)


class DocumentBand(Settings):
    """The policy on injections in text that neither the operator nor the user wrote: documents, tool results, tool
    descriptions. Such text needs no instructions, so its threshold may be lower than that for users' text."""

    threshold: Probability = 0.7
    """The score from which a passage counts as an injection."""
    action: Literal["block", "review", "drop", "quote"] = "block"
    """What follows. ``drop`` replaces this passage by a note, ``quote`` marks it as data (spotlighting, Hines et al.
    2024), and the request goes on. The description of a tool can be neither: it is a part of a schema, and the request
    is refused."""


class InjectionPolicy(Settings):
    """The policy on prompt injections and jailbreaks, by the origin of the text. None: text of this origin is not
    checked for them."""

    user: Band | None = Band()
    """Users' messages, earlier answers as the client sends them back, and prompts of /v1/completions."""
    documents: DocumentBand | None = DocumentBand()
    """Documents, tool results and tools' descriptions."""
    system: Band | None = None
    """System and developer messages. None by default: they are the operator's instructions."""


class PhrasePolicy(Settings):
    """The blocked and allowed phrases. They are compared without regard to case, accents, look-alike and invisible
    characters, and spacing."""

    block: Phrases = ()
    """Phrases that neither requests nor answers may have."""
    allow: Phrases = ()
    """Phrases within which nothing of ``block`` counts: ``Scunthorpe``."""

    @field_validator("block", "allow")
    @classmethod
    def _check_phrases(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        for phrase in phrases:
            compile_phrase(phrase, None)
        return phrases


class PiiPolicy(Settings):
    """The policy on personal data."""

    requests: Literal["off", "redact", "pseudonymise", "block"] = "off"
    """What happens to it in requests, before the model sees it. A pseudonym is put back in the answer."""
    answers: Literal["off", "redact", "block"] = "off"
    """What happens to it in answers. ``block`` ends the answer, and leaves a result out of those of a search."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] | None = None
    """The kinds that count, such as ``EMAIL_ADDRESS`` and ``IBAN_CODE``. None: all that are known but URL."""

    @field_validator("kinds")
    @classmethod
    def _check_kinds(cls, kinds: tuple[str, ...] | None) -> tuple[str, ...] | None:
        recognisers_of(kinds or ())
        return kinds

    @property
    def counted(self) -> Collection[str]:
        """The kinds of personal data that the policy looks for."""
        return DEFAULT_KINDS if self.kinds is None else self.kinds


class SecretPolicy(Settings):
    """The policy on secrets: keys, tokens and passwords of other services."""

    requests: Literal["off", "redact", "block"] = "off"
    """What happens to them in requests."""
    answers: Literal["off", "redact", "block"] = "off"
    """What happens to them in answers. ``block`` ends the answer, and leaves a result out of those of a search."""


class ToolRule(Settings):
    """A rule for tools. It applies to a call if each member that is set matches. The first rule that applies
    decides."""

    action: Literal["allow", "deny"]
    roles: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(min_length=1)] | None = None
    """The roles of keys that the rule is for. None: all."""
    name: Annotated[str, Field(min_length=1, max_length=256)] = ".*"
    """A regular expression that the whole name of the tool matches."""
    type: Literal["function"] | None = None
    """The type of the tool. None: any."""
    arguments: dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=256)]] = Field(
        default_factory=dict
    )
    """Regular expressions that the whole values of top-level arguments match, by their names; values that are not text
    are compared as JSON. Such a rule concerns calls alone, since an offered tool has no arguments yet."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return _checked_pattern(name)

    @field_validator("arguments")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, str]) -> dict[str, str]:
        for pattern in arguments.values():
            _checked_pattern(pattern)
        return arguments


class SizePolicy(Settings):
    """The limits on requests of unusual size or script. A request beyond a limit is reviewed or blocked. None: no
    limit."""

    action: Literal["review", "block"] = "block"
    """What follows."""
    max_characters: int | None = Field(200_000, ge=1)
    """The most characters of all texts of a request together: some 50,000 tokens, which take 20 s of a core to
    classify. None: no limit but the context of the model and ``router.max_body_bytes``."""
    scripts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The scripts that most letters of a text must belong to, by the first word of their Unicode names: ``LATIN``,
    ``CYRILLIC``, ``CJK``. Stands for the languages that the tenant expects."""


class RatePolicy(Settings):
    """The limits on blocked requests, against users who try to get around the checks. Each router counts its own, and
    only those that a model would have answered: an index of documents with personal data is no attack."""

    max_blocked: int | None = Field(None, ge=1)
    """Blocked requests of one user of a key, or of one subject of tokens, within ``window_s``, after which all of the
    user's requests are blocked until the window has passed. Requests that name no user are those of one user. None: no
    limit."""
    max_blocked_by_key: int | None = Field(None, ge=1, le=MAX_TIMES)
    """The same for all users of a key together: a client may name another user with each request. None: ten times
    ``max_blocked``, but not more than 1,000; no limit without it."""
    window_s: float = Field(600.0, gt=0, le=86_400)
    """Seconds of the window."""

    @property
    def limit_by_key(self) -> int | None:
        """Blocked requests of all users of a key, after which all of its requests are blocked. None: no limit."""
        if self.max_blocked_by_key is not None or self.max_blocked is None:
            return self.max_blocked_by_key
        return min(USERS_BEFORE_KEY * self.max_blocked, MAX_TIMES)


class ReviewPolicy(Settings):
    """The policy on requests that a person should decide on."""

    action: Literal["queue", "wait", "refuse", "pass"] = "refuse"
    """What happens to such a request. ``queue`` refuses it, and passes it once it is approved and sent again. ``wait``
    keeps it waiting for the decision. ``refuse`` refuses it, ``pass`` lets it go on, both without a person."""
    wait_s: float = Field(60.0, gt=0, le=3600)
    """Seconds that a request waits for the decision. It is refused after that; the decision counts for the next one."""
    expires_s: float = Field(86_400.0, ge=60, le=30 * 86_400)
    """Seconds that an item waits for a reviewer. It counts as rejected after that."""
    show_text: bool = True
    """Whether reviewers see the text. It is stored encrypted until then."""
    keep_text: bool = False
    """Whether the text is kept after the decision, for the next training of the classifier."""
    exception_s: float = Field(30 * 86_400.0, ge=0, le=366 * 86_400)
    """Seconds for which an approved text passes from then on, so that a false positive is corrected at once."""


class RetrievalPolicy(Settings):
    """The checks of texts that no model answers: the inputs of /v1/embeddings, documents that are added to a
    collection, and the queries and results of its search. The other settings say what each check looks for, and what
    follows. Documents are checked in full when a model reads them, whatever is set here."""

    patterns: bool = True
    """Whether blocked phrases, personal data and secrets are looked for: in inputs and documents by the settings of
    requests, in results by those of answers. A result that is blocked is left out. An input gets marks in place of what
    is redacted, also where requests get pseudonyms, which would make different vectors of one text. A document is
    stored, and a query searched for, as it is, unless it is blocked."""
    content: bool = False
    """Whether harmful content is looked for. Off by default: harmful texts are embedded to be found and sorted, and a
    classification takes as long as the embedding."""
    injection: bool = False
    """Whether injections are looked for, and signs of them in the form of a text. A document that has one is then
    refused when it is added, or reviewed if that is the action. Off by default: a vector follows no instructions."""


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


def _checked_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern
