"""The interface of safety to the other packages: passages, verdicts, rulings, and ports.

Before generation a ``Guard`` inspects the passages of a request and returns a ``Ruling``. During and after generation a
``StreamScanner`` per check reads each text of the answer as it grows, and a ``TextClassifier`` scores it in pieces.
``Oversight`` is the port to the people who review texts that a check is unsure of, and to the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    """The time at which a check runs."""

    BEFORE = "before"  # on the request, before any token is generated
    DURING = "during"  # on the answer as it is generated
    AFTER = "after"  # on the whole answer


class Action(StrEnum):
    """The action that a verdict asks for, mildest first. The most severe verdict of a request decides."""

    ALLOW = "allow"
    REDACT = "redact"  # the spans of the verdict are replaced
    REVIEW = "review"  # a person decides
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """The position in the order of severity, from 0, the mildest."""
        return list(Action).index(self)


class Origin(StrEnum):
    """The origin of a passage. Instructions in passages of untrusted origin are indirect prompt injections."""

    SYSTEM = "system"  # the operator's own words: system and developer messages
    USER = "user"
    HISTORY = "history"  # earlier answers, as the client sends them back
    TOOL_RESULT = "tool_result"  # untrusted
    DOCUMENT = "document"  # untrusted: retrieved text
    TOOL = "tool"  # untrusted: the description of a tool, which others than the operator may have written
    ANSWER = "answer"
    REASONING = "reasoning"
    TOOL_ARGUMENTS = "tool_arguments"


UNTRUSTED = frozenset({Origin.TOOL_RESULT, Origin.DOCUMENT, Origin.TOOL})
"""The origins whose text comes from outside the conversation: neither the operator nor the user wrote it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to inspect. ``field`` is its path in the request, such as ``messages[2].content``, for errors.

    ``readable``: whether ``text`` is the whole passage. A prompt of token ids is not readable, and its text is empty.
    """

    text: str
    origin: Origin
    field: str = ""
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Span:
    """The characters ``[start, end)`` of a text in which a check found something of ``kind``, such as ``EMAIL``.

    ``replacement`` takes their place where the verdict redacts; None: the kind in angle brackets.
    """

    start: int
    end: int
    kind: str
    replacement: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The finding of one check in one passage.

    ``version`` is the version of the check, of its model or of its list. ``score`` is between 0 and 1. ``passage`` is
    the index of the passage. ``spans`` are sorted and do not overlap. ``error`` is set if the check failed or took too
    long; the passage was then not scanned, and ``action`` is the policy's action for this case.
    """

    check: str
    version: str
    action: Action
    category: str = ""
    score: float = 1.0
    passage: int = 0
    spans: tuple[Span, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A classifier's scores of one text: a calibrated probability, 0 to 1, for each category and for an injection.

    ``flagged``: at least one of them is above the threshold that ships with the model.
    """

    categories: Mapping[str, float]
    injection: float
    flagged: bool


TOOLS = "tools"
"""``Verdict.check`` of a tool that the role may not use. ``passage`` is then the index of the tool."""

UNREADABLE = "unreadable"
"""``Verdict.error`` of a passage that is not readable."""
UNREADABLE_POLICY = "unreadable_policy"
"""``Verdict.error`` of a request whose tenant has a policy that this release cannot read."""


class ClassifierUnavailableError(Exception):
    """The classifier did not answer in time, is considered dead, or gave a malformed answer."""


class ClassifierBusyError(ClassifierUnavailableError):
    """The tenant's queue at the classifier is full. The classifier itself is well."""


class TextClassifier(Protocol):
    """Scores texts. ``version`` identifies model and calibration."""

    @property
    def version(self) -> str: ...

    async def classify(self, texts: Sequence[str], tenant: str = "") -> Sequence[Scores]:
        """Returns the scores of each text, in order. Long texts are cut into windows; the maximum over the windows
        counts.

        ``tenant`` is the owner of the texts: tenants take turns. Raises ClassifierUnavailableError if the classifier
        does not answer, and ClassifierBusyError if the tenant's queue is full.
        """
        ...


class Check(Protocol):
    """A check of whole passages. It raises no error: a failure is a verdict with ``error``."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        """Returns a verdict for each passage in which something was found, in the order of the passages. A passage
        without a verdict is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scanner after a piece of text. Offsets count characters from the beginning of the text.

    ``found``: the matches that became certain with this piece, in order. ``settled``: no match that is not yet reported
    can begin before this offset, so that the text before it may be sent.
    """

    found: tuple[Span, ...]
    settled: int


class StreamScanner(Protocol):
    """Finds matches of one kind in one text that arrives in pieces. The spans do not depend on where the text is cut:
    they are those of the whole text."""

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Reads the next piece. ``final``: it is the last, after which ``settled`` is the length of the text."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """The owner of an inspected text, and its request. ``request_id`` is unique; ``role`` is the role of the API
    key."""

    tenant: str
    request_id: str
    key_id: str = ""
    user: str = ""
    role: str = "user"


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decision on a request, from the verdicts of all checks.

    ``texts`` are the passages' texts, redacted where a verdict says so, in the order of the passages. ``unscanned`` has
    the names of the checks that failed and that the policy lets pass. ``message`` is the tenant's text for refusals.
    ``restored`` maps each pseudonym to the text that it stands for, to be put back into the answer.

    ``refused``: the request is blocked, or a person has not approved it. ``reason`` is the verdict that decided that,
    ``refused_field`` the field of the request that it is about; None: no single one. ``as_answer``: the refusal is sent
    as an answer, not as an error. ``policy`` is the policy's version, and ``checks`` has ``name@version`` of each check
    of requests and answers that it asks for. ``scanned``: at least one check has read the request. ``banned`` are
    phrases that no answer may have and that the engine can ban exactly; scanners look for them too.
    """

    action: Action
    texts: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()
    unscanned: tuple[str, ...] = ()
    message: str = ""
    restored: Mapping[str, str] = field(default_factory=dict)
    refused: bool = False
    reason: Verdict | None = None
    refused_field: str | None = None
    as_answer: bool = False
    policy: str = ""
    checks: tuple[str, ...] = ()
    scanned: bool = True
    banned: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The decision in one word: allowed, redacted, review, blocked, or unscanned if a check did not run."""
        if self.unavailable:
            return "unscanned"
        if self.action in (Action.BLOCK, Action.REVIEW):
            return "blocked" if self.action is Action.BLOCK else "review"
        if self.unscanned or not self.scanned:
            return "unscanned"
        return "redacted" if self.action is Action.REDACT else "allowed"

    @property
    def unavailable(self) -> bool:
        """Whether the request is refused because a check failed."""
        return self.reason is not None and self.reason.error not in (None, UNREADABLE)


@dataclass(frozen=True, slots=True)
class Moderation:
    """The classifier's result for one text, by the tenant's policy, for the moderation API.

    ``scores`` are the probabilities of the categories; those in ``flagged`` would be reviewed or blocked in a request.
    """

    scores: Mapping[str, float]
    flagged: frozenset[str]
    injection: float
    injection_flagged: bool


DEFAULT_POLICY = "*"
"""Takes the place of a tenant's name for the policy of all tenants that have none of their own."""


class PolicyStoreError(Exception):
    """The store of policies did not answer."""


class InvalidPolicyError(ValueError):
    """A document is no policy. ``field`` is the setting that is wrong; None: no single one is."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """The policy in effect for a tenant, as JSON. ``stored``: it was set at run time, not by the config file.
    ``unreadable``: another policy was set at run time, which this release cannot read."""

    tenant: str
    version: str
    document: str
    stored: bool
    unreadable: bool = False


class PolicyStore(Protocol):
    """The policies that were set at run time, by tenant, as JSON. Each method raises PolicyStoreError."""

    async def policy(self, tenant: str) -> str | None:
        """Returns the policy of a tenant; None if there is none."""
        ...

    async def put_policy(self, tenant: str, document: str) -> None:
        """Stores the policy of a tenant, as the JSON text ``document``, in place of an earlier one."""
        ...

    async def delete_policy(self, tenant: str) -> bool:
        """Deletes the policy of a tenant. Returns whether there was one."""
        ...

    async def policy_tenants(self) -> Sequence[str]:
        """Returns the tenants that have a policy, sorted."""
        ...


class PolicyAdmin(Protocol):
    """The operations of administrators on policies. Each coroutine raises PolicyStoreError. ``tenant`` may be
    DEFAULT_POLICY."""

    def unreadable(self) -> Sequence[str]:
        """Returns the tenants whose stored policy this release cannot read, sorted. Only policies that this process has
        tried to read are known."""
        ...

    async def policies(self) -> Sequence[PolicyDocument]:
        """Returns all policies, sorted by tenant."""
        ...

    async def policy(self, tenant: str) -> PolicyDocument:
        """Returns the policy in effect for a tenant."""
        ...

    async def set_policy(self, tenant: str, document: bytes) -> PolicyDocument:
        """Replaces the policy of a tenant. All routers use it within seconds. Raises InvalidPolicyError if ``document``
        is no valid policy."""
        ...

    async def remove_policy(self, tenant: str) -> PolicyDocument:
        """Removes the policy that was set at run time. Returns the policy that is then in effect."""
        ...


class Guard(Protocol):
    """Inspects requests, by the policy of each tenant."""

    @property
    def admin(self) -> PolicyAdmin | None:
        """The operations of administrators on policies; None: policies cannot be changed at run time."""
        ...

    @property
    def classifier(self) -> str:
        """The version of the classifier; empty if there is none."""
        ...

    async def inspect(self, subject: Subject, passages: Sequence[Passage], tools: Sequence[str] = ()) -> Ruling:
        """Returns the decision on a request. ``tools`` are the names of the functions that the model is offered.

        It raises no error: a check that fails or takes too long becomes a verdict. It may wait for a person's decision.
        """
        ...

    async def moderate(self, subject: Subject, texts: Sequence[str]) -> Sequence[Moderation]:
        """Returns the classifier's result for each text, in order. Raises ClassifierUnavailableError if the classifier
        does not answer."""
        ...

    async def answers(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        ruling: Ruling,
        on_inspection: Callable[[Inspection], None],
        *,
        streamed: bool = True,
        continued: str = "",
    ) -> AnswerGuard | None:
        """Returns the guard of the answers to a request that was inspected; None: the policy asks for no check of
        answers.

        ``streamed``: whether text is sent as it is generated. A whole answer is sent after all checks, whatever the
        policy says of streams. ``passages`` and ``ruling`` are those of ``inspect``. ``on_inspection`` is called with
        the record of each text. ``continued`` is the text that the answers continue, as the model reads it: matches
        that begin in it and end in an answer are found.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """The terms, by a tenant's policy, of its items in the review queue. Times are in seconds.

    ``expires_s`` is the longest time that an item waits for a reviewer. ``show_text``: the text is stored, encrypted,
    until the item is decided or expires; without it reviewers see only check, category and score. ``keep_text``: a
    stored text is also kept after the decision, for the next training. ``exception_s`` is the time for which an
    approved text then passes without review; 0: it does not.
    """

    expires_s: float = 86_400.0
    show_text: bool = True
    keep_text: bool = False
    exception_s: float = 30 * 86_400.0


DEFAULT_TERMS = ReviewTerms()
"""The terms of a policy that says nothing about them."""


class ReviewOutcome(StrEnum):
    """The outcome of an item of the review queue."""

    APPROVED = "approved"  # the text may pass
    REJECTED = "rejected"
    EXPIRED = "expired"  # it was not decided in time: the text must not pass


class ReviewUnavailableError(Exception):
    """The review queue is full or cannot be reached. The text is not queued."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record of one check in one request, for the audit log. The check or guard that ran writes it.

    ``outcome`` is the consequence, such as ``allowed``, ``refused``, ``redacted``, ``queued`` or ``unscanned``.
    ``text`` is the inspected text. It is not stored: the log has its keyed hash, by which equal texts are found.
    """

    tenant: str
    request_id: str
    stage: Stage
    check: str
    version: str
    action: Action
    outcome: str
    category: str = ""
    score: float | None = None
    text: str = field(default="", repr=False)


class Oversight(Protocol):
    """The port to the people who decide on texts that a check is unsure of, and to the audit log."""

    async def allowed(self, tenant: str, text: str) -> bool:
        """Returns whether a reviewer has approved ``text`` for ``tenant``, whatever its case and white space.

        It is called for texts on which a classifier's verdict is REVIEW or BLOCK; an approved text is then allowed. It
        raises no error: while the exceptions cannot be read, no text is approved.
        """
        ...

    async def submit(
        self, subject: Subject, passage: Passage, verdict: Verdict, terms: ReviewTerms = DEFAULT_TERMS
    ) -> str:
        """Puts the text of ``passage`` into the review queue of ``subject.tenant`` and returns the item's id.

        A text that is already in the queue is not queued again; the id of its item is returned. Raises
        ReviewUnavailableError if the queue is full or cannot be reached.
        """
        ...

    async def decision(self, tenant: str, item_id: str, timeout_s: float) -> ReviewOutcome:
        """Waits until a reviewer has decided on an item, or the item expires, or ``timeout_s`` seconds pass, after
        which the outcome is EXPIRED and the item stays in the queue. It raises no error."""
        ...

    def record(self, record: AuditRecord) -> None:
        """Adds ``record`` to the audit log soon, once, and returns at once.

        A record waits on disk while the log cannot be reached, and survives the end of this process there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Release:
    """The part of a growing text that may be sent now.

    ``text`` follows the text that was released before, with the replacements of redacted spans. It stands for the
    characters of the original up to ``end``; ``replaced`` are the spans of the original, within that part, that were
    replaced. ``halt`` is the verdict that ends the text here: no more of it may be sent. ``done``: the whole text is
    released, or it was halted; and no check of it is running.
    """

    text: str
    end: int
    replaced: tuple[Span, ...] = ()
    halt: Verdict | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Inspection:
    """A record of the checks of one text of an answer, for the audit log.

    ``characters`` is the number of characters that were generated, ``sent`` the number of those that were released or
    replaced. ``covered`` has, for each check by ``name@version``, the number of characters that it has read without a
    failure.
    """

    origin: Origin
    characters: int
    sent: int
    covered: Mapping[str, int]
    verdicts: tuple[Verdict, ...] = ()


class TextModerator(Protocol):
    """Moderates one text of an answer, which arrives in pieces: the content of a choice, its reasoning, or the
    arguments of one tool call. It belongs to one event loop."""

    @property
    def halted(self) -> bool:
        """Whether a verdict has ended the text. It becomes True before ``notify`` is called."""
        ...

    def push(self, piece: str, *, final: bool = False) -> Release:
        """Takes the next piece, and may start a check beside the stream. ``final``: it is the last piece. After a halt
        pieces are ignored."""
        ...

    def resume(self) -> Release:
        """Returns the text that finished checks have released since the last call. It is called after each ``notify``.

        Raises the unexpected exception of a check, if there was one.
        """
        ...

    async def close(self) -> Inspection:
        """Cancels the running checks, and returns the record of the text. It is called once, however the answer
        ends."""
        ...


class AnswerGuard(Protocol):
    """Guards the answers to one request by the tenant's policy."""

    @property
    def message(self) -> str:
        """The text that is sent after a halt, in place of the rest of the answer; empty: none."""
        ...

    @property
    def halts_all(self) -> bool:
        """Whether the halt of one choice halts all choices of the request."""
        ...

    @property
    def waits(self) -> bool:
        """Whether moderators run checks beside the stream. If False, all text is released by ``push``."""
        ...

    def moderator(self, origin: Origin, notify: Callable[[], None]) -> TextModerator | None:
        """Returns a moderator for a new text of ``origin`` (ANSWER, REASONING or TOOL_ARGUMENTS); None: such texts are
        not inspected. ``notify`` is called in the event loop whenever a check has ended."""
        ...

    def tool(self, name: str) -> Verdict | None:
        """Returns a verdict on a tool that the model begins to call, by its name; None: it is allowed. BLOCK halts the
        choice."""
        ...

    def holds_call(self, name: str) -> bool:
        """Returns whether a call of this tool must be held until it is complete and ``call`` has judged it."""
        ...

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Returns a verdict on a complete call; None: it is allowed. ``arguments`` is JSON, as the model wrote it. It
        is called if ``holds_call`` returned True."""
        ...

    def record(self, choice: int, inspection: Inspection) -> None:
        """Takes the record of one text of a choice. It is called once for each text, however the answer ends."""
        ...
