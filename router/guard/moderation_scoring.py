"""Scores the texts of a request, and the answers to it, as OpenAI's request member ``moderation`` asks for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing

from engine.api import Conversation
from router.answer_events import (
    AnswerEvent,
    Ended,
    Finished,
    Moderated,
    Opened,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from router.complete_answer import HaltReason
from router.errors import ContentFilteredError, UnavailableError
from router.inference_request import InferenceRequest
from router.moderation_scores import ModerationResults
from safety.api import ClassifierUnavailableError, Guard, Subject, TextTooLongError

Judge = Callable[[Sequence[str]], Awaitable[ModerationResults]]
"""Scores texts. It raises nothing."""

REFUSAL = "This content was flagged by the moderation that the request asked for."


def judge_of(guard: Guard, subject: Subject, *, urgent: bool) -> Judge:
    """Returns a function that scores texts of ``subject`` with the guard's classifier. ``urgent`` is as in
    ``TextClassifier``."""

    async def judge(texts: Sequence[str]) -> ModerationResults:
        try:
            return ModerationResults(guard.classifier, await guard.moderate(subject, texts, urgent=urgent))
        except (ClassifierUnavailableError, TextTooLongError):
            return ModerationResults(guard.classifier, failed=True)

    return judge


def input_texts(request: InferenceRequest) -> list[str]:
    """Returns a text for each prompt. For a conversation it joins the contents of all messages except system and
    developer messages. For a prompt of token ids it is ""."""
    texts = []
    for prompt in request.prompts:
        if isinstance(prompt, Conversation):
            said = (each.content for each in prompt.messages if each.role not in ("system", "developer"))
            texts.append("\n".join(filter(None, said)))
        else:
            texts.append(prompt if isinstance(prompt, str) else "")
    return texts


async def moderated_input(request: InferenceRequest, judge: Judge) -> ModerationResults:
    """Returns the scores of the request's texts. If the request asks to block flagged input, raises
    ContentFilteredError if a text is flagged, and UnavailableError if the classifier does not answer."""
    found = await judge(input_texts(request))
    if request.moderation is not None and request.moderation.block_input:
        if found.failed:
            raise _unavailable()
        if found.flagged:
            raise ContentFilteredError(REFUSAL, "content_filter", request.prompt_field)
    return found


async def with_scores(
    events: AsyncGenerator[Sequence[AnswerEvent], None], judge: Judge, of_input: ModerationResults, *, block: bool
) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Yields ``events``, with Moderated before Finished, and closes them in any case. ``of_input`` are the scores of
    the request's texts; ``judge`` scores the answers.

    With ``block``, no event is yielded before the answers are scored, each flagged answer is replaced, and
    UnavailableError is raised if the classifier does not answer.
    """
    texts: defaultdict[int, list[str]] = defaultdict(list)
    held: list[AnswerEvent] = []
    async with aclosing(events):
        async for batch in events:
            for event in batch:
                if isinstance(event, Opened):
                    texts[event.choice] = []
                elif isinstance(event, Text | Reasoning | ToolCallArguments):
                    texts[event.choice].append(event.text)
            if not isinstance(batch[-1], Finished):
                if block:
                    held += batch
                else:
                    yield batch
                continue
            choices = sorted(texts)
            found = await judge(["".join(texts[choice]) for choice in choices])
            if block and found.failed:
                raise _unavailable()
            last: Sequence[AnswerEvent] = [*held, *batch[:-1]]
            if block:
                flagged = (choice for choice, each in zip(choices, found.results, strict=True) if each.flagged)
                last = _replaced(last, frozenset(flagged))
            yield [*last, Moderated(of_input, found), batch[-1]]


def _replaced(events: Sequence[AnswerEvent], flagged: Collection[int]) -> list[AnswerEvent]:
    """Returns the events with a refusal in place of each flagged choice's."""
    kept: list[AnswerEvent] = []
    for event in events:
        if isinstance(event, Text | Reasoning | ToolCallStart | ToolCallArguments) and event.choice in flagged:
            continue
        if isinstance(event, Ended) and event.choice in flagged:
            kept += [Text(event.choice, REFUSAL), Ended(event.choice, HaltReason.CONTENT_FILTER)]
        else:
            kept.append(event)
    return kept


def _unavailable() -> UnavailableError:
    return UnavailableError("The classifier does not answer at the moment.", "safety_unavailable", retry_after_s=1)
