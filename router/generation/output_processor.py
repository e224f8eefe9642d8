"""Deltas of one prompt to answer events: choices opened and ended, their text parsed, the best of several chosen."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import Delta, FinishReason, SamplingParams, TokenLogprobs, Usage
from engine.completion import Completion, completions
from router.answer_events import AnswerEvent, Ended, Opened, PromptScored, Text
from router.errors import DeadlineExceededError, InternalServerError, InvalidRequestError, RefusalError
from router.generation.choice_parser import ChoiceParser
from router.inference_request import NO_PARSING, TextParsing


class OutputProcessor:
    """The events of prompt number ``prompt``, whose choices are numbered from ``prompt * sampling.n``."""

    def __init__(self, prompt: int, sampling: SamplingParams, parsing: TextParsing = NO_PARSING) -> None:
        self._prompt = prompt
        self._base = prompt * sampling.n
        self._sampling = sampling
        self._opened: set[int] = set()
        self._parsing = parsing
        self._parsers: dict[int, ChoiceParser] = {}  # of the choices whose text is not taken as it is
        # Which answers are the best is known at the end.
        self._held: list[Delta] | None = [] if sampling.choices > sampling.n else None
        self.usage: Usage | None = None  # once the prompt's answers have ended

    def push(self, deltas: Sequence[Delta]) -> list[AnswerEvent]:
        """The events that ``deltas`` add.

        Raises InternalServerError for a sequence that failed in the engine, InvalidRequestError for one whose answer
        cannot be what was asked, and DeadlineExceededError for one whose deadline passed before it began. The text
        that came with a failure is dropped.
        """
        last = deltas[-1]
        if last.last:
            if (refusal := _failure(last)) is not None:
                raise refusal
            self.usage = last.usage or Usage(0, 0, 0)
        if self._held is not None:
            self._held.extend(deltas)
            return self._best() if last.last else []
        events: list[AnswerEvent] = []
        opened, parsers, base = self._opened, self._parsers, self._base
        for delta in deltas:
            choice = base + delta.choice
            if choice not in opened:
                self._open(events, choice, delta.prompt_logprobs)
            if delta.text or delta.logprobs:
                if not parsers or choice not in parsers:
                    events.append(Text(choice, delta.text, delta.logprobs))
                else:
                    self._parse(events, choice, delta.text, delta.logprobs)
            if delta.finish_reason is not None:
                self._end(events, choice, delta.finish_reason)
        return events

    def _open(self, events: list[AnswerEvent], choice: int, prompt_logprobs: tuple[TokenLogprobs, ...] | None) -> None:
        """The prompt's log probabilities come with the first delta of a request."""
        if prompt_logprobs is not None:
            events.append(PromptScored(self._prompt, prompt_logprobs))
        self._opened.add(choice)
        parser = ChoiceParser(choice, self._parsing)
        if not parser.idle:
            self._parsers[choice] = parser
        events.append(Opened(choice, self._prompt))

    def _parse(
        self, events: list[AnswerEvent], choice: int, text: str, logprobs: tuple[TokenLogprobs, ...] | None
    ) -> None:
        """Log probabilities come with the first piece, or alone while all text is held back."""
        parser = self._parsers[choice]
        pieces = parser.push(text)
        if logprobs is not None:
            first = pieces[0] if pieces else Text(choice, "")
            pieces[:1] = [first._replace(logprobs=logprobs)]
        events += pieces
        if parser.idle:
            del self._parsers[choice]

    def _end(self, events: list[AnswerEvent], choice: int, reason: FinishReason) -> None:
        parser = self._parsers.pop(choice, None)
        if parser is not None:
            events += parser.finish()
        events.append(Ended(choice, reason, parser is not None and parser.called))

    def _best(self) -> list[AnswerEvent]:
        """All events of a request for the best answers of several, best first."""
        best = completions(self._held or [], self._sampling)
        self._held = None
        return self.push([_whole(place, completion) for place, completion in enumerate(best)])


def _whole(place: int, completion: Completion) -> Delta:
    """A whole answer as one delta."""
    return Delta(
        "",
        completion.token_ids,
        completion.text,
        completion.finish_reason,
        logprobs=completion.logprobs,
        choice=place,
        prompt_logprobs=completion.prompt_logprobs,
    )


def _failure(last: Delta) -> RefusalError | None:
    """The error that the last delta of a request stands for, if it does."""
    match last.finish_reason:
        case FinishReason.REFUSED:
            return InvalidRequestError(last.error or "The answer cannot be what it is to be.", "unsatisfiable")
        case FinishReason.ERROR:
            return InternalServerError("The model failed on this request.", "engine_error")
        case FinishReason.DEADLINE:
            message = "No answer had begun by the deadline of the request."
            return DeadlineExceededError(message, "deadline_exceeded", "deadline_s")
        case FinishReason.ABORT:
            return InternalServerError("The request was aborted by the server.", "aborted")
        case _:
            return None
