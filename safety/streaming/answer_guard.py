"""``PlannedGuard``: guards the answers to one request by a ``StreamPlan``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from safety.api import Inspection, Origin, TextModerator, Verdict
from safety.streaming.json_moderator import JsonModerator
from safety.streaming.moderator import StreamModerator
from safety.streaming.plan import ALL_TEXTS, StreamPlan
from safety.streaming.restoring_moderator import RestoringModerator, Rewriter


class ToolGate(Protocol):
    """The policy on the tools that a model calls."""

    def tool(self, name: str) -> Verdict | None:
        """Returns the verdict that denies calls of the tool ``name``; None: it may be called."""
        ...

    def holds_call(self, name: str) -> bool:
        """Returns whether calls of the tool must be held until ``call`` has judged their arguments."""
        ...

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Returns a verdict on a complete call; None: it is allowed. ``arguments`` is JSON."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedGuard:
    """Guards the answers to one request. Implements ``AnswerGuard``.

    ``on_inspection`` takes the record of each text of a choice, for the audit log. Without a ``gate`` every tool may be
    called. ``restorer`` makes the rewriter that turns the pseudonyms in one text back; its argument is True for JSON.
    ``continued`` has the text of each prompt that its answers continue. ``as_json``: the answers' texts are JSON as a
    whole.
    """

    plan: StreamPlan
    on_inspection: Callable[[int, Inspection], None]
    gate: ToolGate | None = None
    message: str = ""
    halts_all: bool = False
    restorer: Callable[[bool], Rewriter] | None = None
    continued: Sequence[str] = ()
    as_json: bool = False

    @property
    def waits(self) -> bool:
        """Whether a text may be classified beside the stream."""
        return self.plan.classifier is not None and bool(self.plan.classifier.origins & ALL_TEXTS)

    def moderator(self, origin: Origin, notify: Callable[[], None], prompt: int = 0) -> TextModerator | None:
        """Returns a moderator for a new text of ``origin`` in an answer to the prompt with the index ``prompt``; None
        if the plan has no rule for it."""
        plan = self.plan.of(origin)
        in_json = origin is Origin.TOOL_ARGUMENTS or (self.as_json and origin is Origin.ANSWER)
        if plan.empty and self.restorer is None:
            return None
        before = "" if in_json or prompt >= len(self.continued) else self.continued[prompt]
        moderator: TextModerator = StreamModerator(origin, plan, notify, before)
        if in_json:
            moderator = JsonModerator(moderator)
        return moderator if self.restorer is None else RestoringModerator(moderator, self.restorer(in_json))

    def tool(self, name: str) -> Verdict | None:
        """Returns the verdict that denies a call of the tool ``name``, which the model begins; None: it is allowed."""
        return None if self.gate is None else self.gate.tool(name)

    def holds_call(self, name: str) -> bool:
        """Returns whether a call of this tool must be held until ``call`` has judged it."""
        return self.gate is not None and self.gate.holds_call(name)

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Returns the verdict that denies a complete call of the tool ``name`` with ``arguments``, in JSON; None: it is
        allowed. It is judged with the values of pseudonyms, as the client gets it."""
        if self.gate is None:
            return None
        values = arguments if self.restorer is None else self.restorer(True).push(arguments, final=True)
        return self.gate.call(name, values)

    def record(self, choice: int, inspection: Inspection) -> None:
        """Passes the record of one text on to ``on_inspection``."""
        self.on_inspection(choice, inspection)
