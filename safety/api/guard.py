"""``Guard``: inspects requests before generation; an ``AnswerGuard`` guards the answers to one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from safety.api.classifier import Moderation
from safety.api.moderator import Inspection, TextModerator
from safety.api.passage import Origin, Passage, Subject, TextUse
from safety.api.policy_admin import PolicyAdmin
from safety.api.ruling import Ruling
from safety.api.verdict import Verdict


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

    async def drops_turns(self, tenant: str) -> bool:
        """Returns whether the policy of a tenant drops earlier turns, for which ``inspect`` needs ``Passage.turn``: to
        find the turns takes time. It raises no error."""
        ...

    async def speculates(self, tenant: str) -> Sequence[str] | None:
        """Returns the phrases that no answer may have, as ``Ruling.banned`` will, if the policy of a tenant lets the
        engine begin to answer beside ``inspect``; None: it must wait. It raises no error."""
        ...

    async def inspect(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        tools: Sequence[str] = (),
        *,
        use: TextUse = TextUse.GENERATION,
    ) -> Ruling:
        """Returns the decision on a request. ``tools`` are the names of the functions that the model is offered.
        ``use`` is what the texts are for: a policy may ask for fewer checks of texts that no model answers.

        It raises no error: a check that fails or takes too long becomes a verdict. It may wait for a person's decision.
        """
        ...

    async def moderate(self, subject: Subject, texts: Sequence[str], *, urgent: bool = True) -> Sequence[Moderation]:
        """Returns the classifier's result for each text, in order. ``urgent`` is as in ``TextClassifier``.

        Raises ClassifierUnavailableError if the classifier does not answer, and TextTooLongError for more characters
        than the policy allows in a request."""
        ...

    async def answers(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        ruling: Ruling,
        on_inspection: Callable[[Inspection], None],
        *,
        streamed: bool = True,
        continued: Sequence[str] = (),
        as_json: bool = False,
    ) -> AnswerGuard | None:
        """Returns the guard of the answers to a request that was inspected; None: the policy asks for no check of
        answers.

        ``streamed``: whether text is sent as it is generated. A whole answer is sent after all checks, whatever the
        policy says of streams. ``passages`` and ``ruling`` are those of ``inspect``. ``on_inspection`` is called with
        the record of each text. ``continued`` has the text of each prompt that its answers continue, as the model reads
        it: matches that begin in it and end in an answer are found. ``as_json``: the answers' texts are JSON, so that
        they are checked as the strings that they mean, and stay JSON where something is replaced.
        """
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

    def moderator(self, origin: Origin, notify: Callable[[], None], prompt: int = 0) -> TextModerator | None:
        """Returns a moderator for a new text of ``origin`` (ANSWER, REASONING or TOOL_ARGUMENTS) in an answer to the
        prompt with the index ``prompt``; None: such texts are not inspected. ``notify`` is called in the event loop
        whenever a check has ended."""
        ...

    def tool(self, name: str) -> Verdict | None:
        """Returns a verdict on a tool that the model begins to call, by its name; None: it is allowed. BLOCK halts the
        choice."""
        ...

    def holds_call(self, name: str) -> bool:
        """Returns whether a call of this tool must be held until it is complete and ``call`` has judged it."""
        ...

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Returns a verdict on a complete call; None: it is allowed. ``arguments`` is JSON, as the model wrote it,
        maybe with pseudonyms. It is called if ``holds_call`` returned True."""
        ...

    def record(self, choice: int, inspection: Inspection) -> None:
        """Takes the record of one text of a choice. It is called once for each text, however the answer ends, and once
        for the verdicts that have denied tool calls of the choice."""
        ...
