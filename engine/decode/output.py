"""The visible output of one sequence: detokenises its tokens and detects the end of the answer."""

from __future__ import annotations

from copy import copy

from engine.api import FinishReason, SamplingParams
from engine.decode.detokenizer import Detokenizer
from engine.decode.stop import StopStrings


class Output:
    """The text of one sequence. A token that ends the sequence (end of sequence, or one of ``stop_token_ids``) counts
    as one of its tokens but adds no text."""

    def __init__(self, params: SamplingParams, eos_token_ids: frozenset[int], detokenizer: Detokenizer) -> None:
        self.final_tokens = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos_token_ids)
        self._detokenizer = detokenizer
        self._stop = StopStrings(params.stop)
        self._can_stop = bool(params.stop)
        self._unstopped = params.min_tokens  # tokens left before stop strings count

    def copy(self) -> Output:
        """Returns an independent copy in the same state, for a beam."""
        twin = copy(self)
        twin._detokenizer, twin._stop = self._detokenizer.copy(), copy(self._stop)
        return twin

    @property
    def added(self) -> bytes:
        """The bytes that the last token pushed adds to the text, even if they are still held back."""
        return self._detokenizer.added

    def is_end(self, token: int) -> bool:
        """Returns whether ``token`` ends the sequence and adds no text."""
        return token in self.final_tokens

    def push(self, token: int, last: bool, complete: bool = False) -> tuple[str, FinishReason | None]:
        """Adds a token. Returns the text that became certain, and the finish reason, None if the sequence goes on.

        ``last``: no further token fits (finish reason LENGTH). ``complete``: the grammar is completed (STOP). At the
        end the text that was held back is returned too.
        """
        if token in self.final_tokens:
            return self.rest(), FinishReason.STOP
        self._unstopped -= 1
        text = self._detokenizer.push(token)
        if self._can_stop and self._unstopped <= 0:
            text, stopped = self._stop.push(text)
            if stopped:
                return text, FinishReason.STOP
        if complete:
            return text + self.rest(), FinishReason.STOP
        if last:
            return text + self.rest(), FinishReason.LENGTH
        return text, None

    def rest(self) -> str:
        """Removes the text that is held back and returns it, up to a stop string if it has one."""
        text, stopped = self._stop.push(self._detokenizer.flush())
        return text if stopped else text + self._stop.flush()
