"""What other floors may know of safety: passages, verdicts, rulings, and the ports between them.

Before generation a ``Guard`` inspects the passages of a request and returns a ``Ruling``. During and after generation
a ``StreamScanner`` per check reads each text of the answer as it grows, and a ``TextClassifier`` scores it in pieces.
``Oversight`` is the way to the people who review what a check is unsure of, and to the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    """When a check runs."""

    BEFORE = "before"  # on the request, before any token is generated
    DURING = "during"  # on the answer as it is generated
    AFTER = "after"  # on the whole answer


class Action(StrEnum):
    """What a verdict asks for, mildest first. The most severe verdict of a request decides."""

    ALLOW = "allow"
    REDACT = "redact"  # the spans of the verdict are replaced
    REVIEW = "review"  # a person decides
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """The position in the order of severity, from 0."""
        return list(Action).index(self)


class Origin(StrEnum):
    """Where a passage comes from. Instructions within untrusted origins are indirect prompt injections."""

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
    """A text to inspect. ``field`` names its place in the request, such as ``messages[2].content``, for errors.

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
    """What one check found in one passage.

    ``version`` is that of the check, its model or its list. ``score`` is between 0 and 1. ``passage`` is the index of
    the passage. ``spans`` are sorted and do not overlap. ``error`` is set if the check failed or took too long; the
    passage was not scanned then, and ``action`` is what the policy wants for this case.
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
    """What a classifier says of one text: a calibrated probability for each category, and for an injection.

    ``flagged`` is whether any of them is above the threshold that ships with the model.
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
    """The classifier did not answer in time, is taken for dead, or its answer made no sense."""


class ClassifierBusyError(ClassifierUnavailableError):
    """The classifier is well, and as much text of the tenant waits for it as may."""


class TextClassifier(Protocol):
    """Scores texts. The version identifies model and calibration."""

    @property
    def version(self) -> str: ...

    async def classify(self, texts: Sequence[str], tenant: str = "") -> Sequence[Scores]:
        """Returns the scores of each text, in order. Long texts are cut into windows; the worst one counts.

        ``tenant`` is whose texts they are: tenants take turns. Raises ClassifierUnavailableError.
        """
        ...


class Check(Protocol):
    """A check of whole passages. It raises nothing: a failure is a verdict with ``error``."""

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
    """What a scanner knows after a piece. Offsets count characters from the beginning of the text.

    ``found``: the matches that became certain with this piece, in order. ``settled``: no match that is not yet
    reported can begin before this offset, so that everything before it may be sent.
    """

    found: tuple[Span, ...]
    settled: int


class StreamScanner(Protocol):
    """Looks for one kind of thing in one text that arrives in pieces. It reads each character once, however the text is
    cut: the found spans are those of the whole text."""

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Reads the next piece. ``final``: it is the last, after which ``settled`` is the length of the text."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose text is inspected. ``request_id`` is unique; ``role`` is the role of the key."""

    tenant: str
    request_id: str
    key_id: str = ""
    user: str = ""
    role: str = "user"


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decision on a request, from the verdicts of all checks.

    ``texts`` are the passages' texts, redacted where a verdict says so, in the order of the passages. ``unscanned`` has
    the names of the checks that failed and that the policy lets pass. ``message`` is the refusal of the tenant.
    ``restored`` maps each pseudonym to the text that it stands for, to be put back into the answer.

    ``refused``: whether the request does not go on: it is blocked, or a person has not approved it. ``reason`` is the
    verdict that decided that, ``refused_field`` its place in the request; None: it is in no one place. ``as_answer``:
    whether the refusal is sent as an answer, not as an error. ``policy`` is the policy's version. ``scanned``: whether
    any check has read the request. ``banned`` are phrases that no answer may have and that the engine can leave out
    exactly; scanners look for them all the same.
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
    """What the classifier says of one text, by the tenant's policy, for the moderation API.

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
    """A document is no policy. ``field`` is the setting that is wrong; None: none alone is."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """The policy that counts for a tenant, as JSON. ``stored``: it was set at run time, and not by the config file.
    ``unreadable``: another one was set, which this release cannot read."""

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
        """Stores the policy of a tenant."""
        ...

    async def delete_policy(self, tenant: str) -> bool:
        """Deletes the policy of a tenant. Returns whether there was one."""
        ...

    async def policy_tenants(self) -> Sequence[str]:
        """Returns the tenants that have a policy, sorted."""
        ...


class PolicyAdmin(Protocol):
    """The policies for administrators. Each coroutine raises PolicyStoreError. ``tenant`` may be DEFAULT_POLICY."""

    def unreadable(self) -> Sequence[str]:
        """Returns the tenants whose stored policy this release cannot read, as far as it was asked for here, sorted."""
        ...

    async def policies(self) -> Sequence[PolicyDocument]:
        """Returns all policies, sorted by tenant."""
        ...

    async def policy(self, tenant: str) -> PolicyDocument:
        """Returns the policy that counts for a tenant."""
        ...

    async def set_policy(self, tenant: str, document: bytes) -> PolicyDocument:
        """Replaces the policy of a tenant. Routers follow within seconds. Raises InvalidPolicyError."""
        ...

    async def remove_policy(self, tenant: str) -> PolicyDocument:
        """Removes what was set at run time. Returns the policy that counts from now on."""
        ...


class Guard(Protocol):
    """Inspects requests, by the policy of each tenant."""

    @property
    def admin(self) -> PolicyAdmin | None:
        """The policies for administrators; None: they cannot be changed at run time."""
        ...

    @property
    def classifier(self) -> str:
        """The version of the classifier; empty if there is none."""
        ...

    async def inspect(self, subject: Subject, passages: Sequence[Passage], tools: Sequence[str] = ()) -> Ruling:
        """Returns the decision on a request. ``tools`` are the names of the functions that the model is offered.

        It raises nothing: a check that fails or takes too long is a verdict. May wait for a person's decision.
        """
        ...

    async def moderate(self, subject: Subject, texts: Sequence[str]) -> Sequence[Moderation]:
        """Returns what the classifier says of each text, in order. Raises ClassifierUnavailableError."""
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
        """Returns what moderates the answers to a request that was inspected; None: nothing does.

        ``streamed``: whether text is sent as it is generated. A whole answer is sent after all checks, whatever the
        policy says of streams. ``passages`` and ``ruling`` are those of ``inspect``. ``on_inspection`` gets what was
        done with each text. ``continued`` is the text that the answers continue, as the model reads it: what it begins
        and they end is found.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """What a tenant's policy says about its items in the review queue. Times in seconds.

    ``expires_s``: how long an item waits for a reviewer. ``show_text``: whether the text is stored, encrypted, until
    the item is decided or expires; without it reviewers see check, category and score alone. ``keep_text``: whether a
    stored text is kept after the decision too, for the next training. ``exception_s``: how long an approved text passes
    from then on; 0: it does not.
    """

    expires_s: float = 86_400.0
    show_text: bool = True
    keep_text: bool = False
    exception_s: float = 30 * 86_400.0


DEFAULT_TERMS = ReviewTerms()
"""The terms of a policy that says nothing about them."""


class ReviewOutcome(StrEnum):
    """What became of an item of the review queue."""

    APPROVED = "approved"  # the text may pass
    REJECTED = "rejected"
    EXPIRED = "expired"  # it was not decided in time: the text must not pass


class ReviewUnavailableError(Exception):
    """The review queue is full or cannot be reached. The text is not queued."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What one check did in one request, for the audit log. The check or guard that ran writes it.

    ``outcome`` says what happened then, such as ``allowed``, ``refused``, ``redacted``, ``queued`` or ``unscanned``.
    ``text`` is what was inspected. It is not stored: the log has its keyed hash, by which equal texts are found.
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
    """People who decide on what a check is unsure of, and the audit log of what was decided."""

    async def allowed(self, tenant: str, text: str) -> bool:
        """Returns whether a reviewer has approved ``text`` for ``tenant``, whatever its case and white space.

        To be asked if a classifier's verdict is to review or block: the verdict then counts as allowed. It raises
        nothing: while the list of exceptions cannot be read, no text is on it.
        """
        ...

    async def submit(
        self, subject: Subject, passage: Passage, verdict: Verdict, terms: ReviewTerms = DEFAULT_TERMS
    ) -> str:
        """Puts the text of ``passage`` into the review queue of ``subject.tenant`` and returns the item's id.

        A text that is in the queue already is not queued again: the id is that of the item there. Raises
        ReviewUnavailableError.
        """
        ...

    async def decision(self, tenant: str, item_id: str, timeout_s: float) -> ReviewOutcome:
        """Waits until a reviewer has decided on an item, or the item expires, or ``timeout_s`` seconds pass, after
        which the outcome is EXPIRED. The item stays in the queue then. It raises nothing."""
        ...

    def record(self, record: AuditRecord) -> None:
        """Adds ``record`` to the audit log soon, once, and returns at once.

        A record waits on disk while the log cannot be reached, and survives the end of this process there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Release:
    """What may be sent of a growing text.

    ``text`` follows what was released before, with the replacements of redacted spans. It stands for the characters of
    the original up to ``end``; ``replaced`` are the spans of the original, within that part, that were replaced.
    ``halt`` is the verdict that ends the text here: nothing more of it may be sent. ``done``: all of the text is
    released, or it was halted, and no check of it is running.
    """

    text: str
    end: int
    replaced: tuple[Span, ...] = ()
    halt: Verdict | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the checks did with one text of an answer, for the audit. The checks themselves report it.

    ``characters`` counts those that were generated, ``sent`` those of them that were released or replaced. ``covered``
    has, for each check by ``name@version``, how many characters it has read without a failure.
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
        """Whether a verdict has ended the text. It is so before ``notify`` is called."""
        ...

    def push(self, piece: str, *, final: bool = False) -> Release:
        """Takes the next piece, and may start a check beside the stream. ``final``: it is the last piece. After a halt
        pieces are ignored."""
        ...

    def resume(self) -> Release:
        """Returns what finished checks have released since the last call. Called after each ``notify``.

        Raises what a check raised against its contract.
        """
        ...

    async def close(self) -> Inspection:
        """Ends the running checks, and returns what was done. Called once, however the answer ends."""
        ...


class AnswerGuard(Protocol):
    """What the policy of a tenant does with the answers to one request."""

    @property
    def message(self) -> str:
        """The text that takes the place of what is not sent after a halt; empty: none."""
        ...

    @property
    def halts_all(self) -> bool:
        """Whether the halt of one choice halts all choices of the request."""
        ...

    @property
    def waits(self) -> bool:
        """Whether a moderator runs checks beside the stream. If not, ``push`` alone releases text."""
        ...

    def moderator(self, origin: Origin, notify: Callable[[], None]) -> TextModerator | None:
        """Returns a moderator for a new text of ``origin`` (ANSWER, REASONING or TOOL_ARGUMENTS); None: such texts are
        not inspected. ``notify`` is called in the event loop whenever a check has ended."""
        ...

    def tool(self, name: str) -> Verdict | None:
        """Judges the name of a tool that the model begins to call. A verdict of BLOCK halts the choice."""
        ...

    def holds_call(self, name: str) -> bool:
        """Whether a call of this tool is sent only when it is complete and ``call`` has judged it."""
        ...

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Judges a complete call; ``arguments`` is JSON, as the model wrote it. Called if ``holds_call``."""
        ...

    def record(self, choice: int, inspection: Inspection) -> None:
        """Takes what was done with one text of a choice, once for each text, however the answer ends."""
        ...
