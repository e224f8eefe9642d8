"""What one sequence shows of itself: its tokens turned into text, its end recognised."""

from __future__ import annotations

from copy import copy

from engine.api import FinishReason, SamplingParams
from engine.decode.detokenizer import Detokenizer
from engine.decode.stop import StopStrings


class Output:
    """Text of one sequence.

    A token that ends the sequence (end of sequence, or one of ``stop_token_ids``) belongs to its tokens but not to its
    text.
    """

    def __init__(self, params: SamplingParams, eos_token_ids: frozenset[int], detokenizer: Detokenizer) -> None:
        self.final_tokens = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos_token_ids)
        self._detokenizer = detokenizer
        self._stop = StopStrings(params.stop)
        self._unstopped = params.min_tokens  # tokens whose text no stop string ends

    def copy(self) -> Output:
        """Another at the same place, for a beam."""
        twin = copy(self)
        twin._detokenizer, twin._stop = self._detokenizer.copy(), copy(self._stop)
        return twin

    @property
    def added(self) -> bytes:
        """What the token pushed last adds to the text, though it may be held back still."""
        return self._detokenizer.added

    def is_end(self, token: int) -> bool:
        """Whether the sequence ends with this token, which then adds no text."""
        return token in self.final_tokens

    def push(self, token: int, last: bool, complete: bool = False) -> tuple[str, FinishReason | None]:
        """Text that became certain with this token, and why the sequence ends here, if it does.

        ``last`` says that no further token fits, ``complete`` that none is wanted; the text held back then comes out.
        """
        if token in self.final_tokens:
            return self._rest(), FinishReason.STOP
        self._unstopped -= 1
        text = self._detokenizer.push(token)
        text, stopped = (text, False) if self._unstopped > 0 else self._stop.push(text)
        if stopped:
            return text, FinishReason.STOP
        if complete:
            return text + self._rest(), FinishReason.STOP
        if last:
            return text + self._rest(), FinishReason.LENGTH
        return text, None

    def _rest(self) -> str:
        text, stopped = self._stop.push(self._detokenizer.flush())
        return text if stopped else text + self._stop.flush()
