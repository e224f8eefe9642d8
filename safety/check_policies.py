"""The policies of single checks, of which ``PolicyConfig`` is made: what each check looks for, and what follows.
Unknown keys are refused.

Scores are calibrated probabilities between 0 and 1.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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


def _checked_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern
