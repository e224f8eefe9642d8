"""``TextLogging``: gives the texts of requests to the log of texts, if the tenant has asked for it.

It sees what the client sees: the prompt as the guard has let it through, and the answers as the guard has released
them. A request that the guard has refused is not logged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from router.answer_events import AnswerEvent, Ended, Reasoning, Text, ToolCallArguments, ToolCallStart
from router.config.tenants import TenantConfig
from router.guard.json_strings import document_of, dumped, with_letters
from router.guard.request_texts import is_json, passages_of
from router.ledger.ledger import Account
from router.ledger.ledger_entry import Outcome
from router.ports.text_log import LoggedText, RequestTexts, TextLog

Batches = AsyncGenerator[Sequence[AnswerEvent], None]

MODEL = "model"
"""The origin of answers."""


class TextLogging:
    """The requests of one router whose texts go to ``log``: those of ``tenants`` with ``log_texts``. ``log`` None: of
    none."""

    def __init__(self, log: TextLog | None, tenants: Mapping[str, TenantConfig]) -> None:
        self._log = log
        self._tenants = frozenset(name for name, tenant in tenants.items() if tenant.log_texts)

    def logged(self, account: Account, answers: Batches) -> Batches:
        """Returns ``answers``, whose texts go to the log when they end, by an error or a cancellation too. Those of a
        tenant that has not asked for it are returned as they are."""
        refused = account.ruling is not None and account.ruling.refused
        if self._log is None or account.principal.tenant not in self._tenants or refused:
            return answers
        return _logged(account, answers, self._log)


class SentTexts:
    """The texts of the answers of a request as they were sent, joined from their pieces. Of each it keeps
    ``max_text`` characters and says that it is ``truncated``. ``as_json``: the answers are JSON."""

    def __init__(self, max_text: int, *, as_json: bool) -> None:
        self._max_text = max_text
        self._as_json = as_json
        self._pieces: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        self._lengths: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._ends: dict[int, str] = {}
        self.truncated = False

    def push(self, events: Sequence[AnswerEvent]) -> None:
        """Takes the next events, in order."""
        for event in events:
            match event:
                case Text(choice, text):
                    self._add(choice, "text", text)
                case Reasoning(choice, text):
                    self._add(choice, "reasoning", text)
                case ToolCallStart(choice, call, _, name):
                    self._add(choice, f"tool_calls[{call}].name", name)
                case ToolCallArguments(choice, call, text):
                    self._add(choice, f"tool_calls[{call}].arguments", text)
                case Ended(choice, reason):
                    self._ends[choice] = reason.value

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Why the choices ended, in their order."""
        return tuple(self._ends[choice] for choice in sorted(self._ends))

    def texts(self) -> tuple[LoggedText, ...]:
        """Returns the texts in the order of their choices. JSON that cannot be read is left out: its escapes could
        hide what is to be redacted."""
        found = []
        for (choice, part), pieces in sorted(self._pieces.items(), key=lambda each: each[0][0]):
            text: str | None = "".join(pieces)
            if part.endswith(".arguments") or (self._as_json and part == "text"):
                text = without_escapes("".join(pieces))
            if text is None:
                self.truncated = True
            elif text:
                found.append(LoggedText(f"choices[{choice}].{part}", MODEL, with_letters(text)))
        return tuple(found)

    def _add(self, choice: int, part: str, text: str) -> None:
        key = choice, part
        room = self._max_text - self._lengths[key]
        if len(text) > room:
            self.truncated = True
            text = text[:room]
        if text:
            self._pieces[key].append(text)
            self._lengths[key] += len(text)


def without_escapes(text: str) -> str | None:
    r"""Returns the JSON ``text`` with its letters instead of escapes such as ``\u0040``; None if it is no JSON object,
    list or string, or is nested too deeply."""
    try:
        value = document_of(text)
        return None if value is None else dumped(value)
    except RecursionError:
        return None


async def _logged(account: Account, answers: Batches, log: TextLog) -> Batches:
    sent, ended = SentTexts(log.max_text, as_json=is_json(account.request)), False
    outcome = Outcome.CANCELLED
    try:
        async with aclosing(answers):
            async for events in answers:
                sent.push(events)
                yield events
        ended = not account.client_left
        outcome = Outcome.FINISHED if ended else Outcome.CANCELLED
        if account.fault is not None:
            outcome = Outcome.FAILED
    except Exception:
        outcome = Outcome.FAILED
        raise
    finally:
        if not ended and account.call.timed_out:
            outcome = Outcome.FAILED
        # An answer that is not streamed is sent at its end; before, its client gets an error, or has left.
        shown = sent.texts() if account.request.stream or ended else ()
        log.offer(_record(account, sent, shown, outcome, log.max_text))


def _record(
    account: Account, sent: SentTexts, answers: Sequence[LoggedText], outcome: Outcome, max_text: int
) -> RequestTexts:
    """Returns the record of a request that has ended, with what was ``sent``."""
    try:
        passages = passages_of(account.request)
    except RecursionError:  # a document that is nested too deeply to be read
        passages, sent.truncated = [], True
    prompt = [
        LoggedText(passage.field, passage.origin.value, with_letters(passage.text))
        for passage in passages
        if passage.text
    ]
    cut = any(len(each.text) > max_text for each in prompt)
    return RequestTexts(
        account.id,
        account.call.request_id,
        account.principal.tenant,
        account.call.endpoint,
        account.tier,
        account.started_at,
        outcome.value,
        sent.finish_reasons,
        tuple(replace(each, text=each.text[:max_text]) for each in prompt),
        answers,
        sent.truncated or cut,
    )
