"""``PlannedGuard``: guards the answers to one request as a plan says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from safety.api import Inspection, Origin, TextModerator, Verdict
from safety.streaming.json_moderator import JsonModerator
from safety.streaming.moderator import StreamModerator
from safety.streaming.plan import ALL_TEXTS, StreamPlan
from safety.streaming.restoring_moderator import RestoringModerator, Rewriter


class ToolGate(Protocol):
    """What a policy says of the tools that a model calls."""

    def tool(self, name: str) -> Verdict | None:
        """Judges the name of a tool."""
        ...

    def holds_call(self, name: str) -> bool:
        """Whether the arguments decide too."""
        ...

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Judges a complete call. ``arguments`` is JSON, as the model wrote it."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedGuard:
    """Guards the answers to one request. Implements ``AnswerGuard``.

    ``on_inspection`` takes what was done with each text of a choice, for the audit. Without a ``gate`` every tool may
    be called. ``restorer`` makes what turns the pseudonyms in one text back; its argument says whether that is JSON.
    ``continued`` is the text that the answers continue.
    """

    plan: StreamPlan
    on_inspection: Callable[[int, Inspection], None]
    gate: ToolGate | None = None
    message: str = ""
    halts_all: bool = False
    restorer: Callable[[bool], Rewriter] | None = None
    continued: str = ""

    @property
    def waits(self) -> bool:
        """Whether a text may be classified beside the stream."""
        return self.plan.classifier is not None and bool(self.plan.classifier.origins & ALL_TEXTS)

    def moderator(self, origin: Origin, notify: Callable[[], None]) -> TextModerator | None:
        """Returns a moderator for a new text of ``origin``; None if the plan has no rule for it."""
        plan, in_json = self.plan.of(origin), origin is Origin.TOOL_ARGUMENTS
        if plan.empty and self.restorer is None:
            return None
        moderator: TextModerator = StreamModerator(origin, plan, notify, "" if in_json else self.continued)
        if in_json:
            moderator = JsonModerator(moderator)
        return moderator if self.restorer is None else RestoringModerator(moderator, self.restorer(in_json))

    def tool(self, name: str) -> Verdict | None:
        """Judges the name of a tool that the model begins to call."""
        return None if self.gate is None else self.gate.tool(name)

    def holds_call(self, name: str) -> bool:
        """Whether a call of this tool is sent only when it was judged as a whole."""
        return self.gate is not None and self.gate.holds_call(name)

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Judges a complete call."""
        return None if self.gate is None else self.gate.call(name, arguments)

    def record(self, choice: int, inspection: Inspection) -> None:
        """Passes on what was done with one text."""
        self.on_inspection(choice, inspection)
