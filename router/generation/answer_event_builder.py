"""``AnswerEventBuilder``: turns the engine's deltas for one prompt into answer events."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import Delta, FinishReason, SamplingParams, TokenLogprobs, Usage
from engine.completion import Completion, completions
from router.answer_events import AnswerEvent, Ended, Opened, PromptScored, Reasoning, Text, ToolCallStart
from router.errors import DeadlineExceededError, InternalServerError, InvalidRequestError, RefusalError
from router.generation.choice_parser import ChoiceParser, Piece
from router.inference_request import NO_PARSING, TextParsing
from router.usage_meter import UsageMeter


class AnswerEventBuilder:
    """The state of one prompt's output: which choices have begun, and the parsers of their text.

    ``prompt`` is the index of the prompt; its choices are numbered from ``prompt * sampling.n``. ``usage`` holds the
    token counts once all choices have ended; before, it is None. ``meter`` counts the tokens of reasoning.
    """

    def __init__(
        self,
        prompt: int,
        sampling: SamplingParams,
        parsing: TextParsing = NO_PARSING,
        meter: UsageMeter | None = None,
    ) -> None:
        self._prompt = prompt
        self._base = prompt * sampling.n
        self._sampling = sampling
        self._opened: set[int] = set()
        self._parsing = parsing
        self._meter = meter
        self._parsers: dict[int, ChoiceParser] = {}  # of the choices whose text is still parsed, by choice
        # With best_of, all deltas are held until the end: only then are the best answers known.
        self._held: list[Delta] | None = [] if sampling.choices > sampling.n else None
        self.usage: Usage | None = None

    def push(self, deltas: Sequence[Delta]) -> list[AnswerEvent]:
        """Takes the next deltas of the prompt, at least one, and returns the events that they complete, in order.

        Updates the parsers, and sets ``usage`` with the last delta. If ``best_of`` exceeds ``n``, holds all deltas back
        and returns all events with the last one.

        Raises an error if the last delta has a failure as its finish reason: InternalServerError for ERROR and ABORT,
        InvalidRequestError for REFUSED, DeadlineExceededError for DEADLINE. Text in the same batch is dropped.
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
                    share = self._parse(events, choice, delta.text, delta.logprobs)
                    if share and self._meter is not None:
                        self._meter.reasoning_tokens += round(share * len(delta.token_ids))
            if delta.finish_reason is not None:
                self._end(events, choice, delta.finish_reason)
        return events

    def _open(self, events: list[AnswerEvent], choice: int, prompt_logprobs: tuple[TokenLogprobs, ...] | None) -> None:
        """Adds the events at the beginning of a choice. ``prompt_logprobs`` come with the first delta of a request."""
        if prompt_logprobs is not None:
            events.append(PromptScored(self._prompt, prompt_logprobs))
        self._opened.add(choice)
        parser = ChoiceParser(choice, self._parsing)
        if not parser.passes_text:
            self._parsers[choice] = parser
        events.append(Opened(choice, self._prompt))

    def _parse(
        self, events: list[AnswerEvent], choice: int, text: str, logprobs: tuple[TokenLogprobs, ...] | None
    ) -> float:
        """Adds the events that ``text`` completes. Returns the share of reasoning in their characters, from 0 to 1.

        The log probabilities go with the first event, or with an empty Text if the parser holds all text back.
        """
        parser = self._parsers[choice]
        pieces = parser.push(text)
        if logprobs is not None:
            first = pieces[0] if pieces else Text(choice, "")
            pieces[:1] = [first._replace(logprobs=logprobs)]
        events += pieces
        if parser.passes_text:
            del self._parsers[choice]
        return _reasoning_share(pieces)

    def _end(self, events: list[AnswerEvent], choice: int, reason: FinishReason) -> None:
        """Adds the events at the end of a choice."""
        parser = self._parsers.pop(choice, None)
        if parser is not None:
            events += parser.finish()
        events.append(Ended(choice, reason, parser is not None and parser.called))

    def _best(self) -> list[AnswerEvent]:
        """Releases the held deltas and returns all events of the ``n`` best answers, best first."""
        best = completions(self._held or [], self._sampling)
        self._held = None
        return self.push([_as_delta(choice, completion) for choice, completion in enumerate(best)])


def _reasoning_share(pieces: Sequence[Piece]) -> float:
    """Returns the share of reasoning in the characters of ``pieces``, from 0 to 1. Tokens are counted by it: those of
    one delta may be of both kinds, and a beam search or ``best_of`` brings a whole answer in one."""
    if not any(isinstance(piece, Reasoning) for piece in pieces):
        return 0.0
    lengths = [len(piece.name if isinstance(piece, ToolCallStart) else piece.text) for piece in pieces]
    reasoning = sum(length for piece, length in zip(pieces, lengths, strict=True) if isinstance(piece, Reasoning))
    return reasoning / sum(lengths)


def _as_delta(choice: int, completion: Completion) -> Delta:
    """Returns a complete answer as one delta of ``choice``."""
    return Delta(
        "",
        completion.token_ids,
        completion.text,
        completion.finish_reason,
        logprobs=completion.logprobs,
        choice=choice,
        prompt_logprobs=completion.prompt_logprobs,
    )


def _failure(last: Delta) -> RefusalError | None:
    """Returns the error for the finish reason of a request's last delta; None if the request succeeded."""
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
