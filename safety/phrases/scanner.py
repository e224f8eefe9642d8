"""``PhraseScanner``: finds the phrases of an automaton in one text that arrives in pieces.

A match is reported once no longer match can begin at its start, and no phrase of the allowlist can still grow around
it.
"""

from __future__ import annotations

from dataclasses import dataclass

from safety.api import Scan, Span
from safety.phrases.automaton import PhraseAutomaton, State
from safety.phrases.letters import MAX_IGNORED, border_after, border_before, letters_before
from safety.phrases.phrase import Pattern
from safety.text.folding import SEPARATOR


@dataclass(frozen=True, slots=True)
class _Match:
    start: int
    end: int
    pattern: Pattern


class PhraseScanner:
    """A StreamScanner of phrases. Of two matches with the same start the longer one counts. Of two that overlap, the
    later one begins at the end of the earlier one. A match within a phrase of the allowlist does not count.

    It holds back at most ``automaton.max_extent + MAX_IGNORED`` characters, and nothing while the last word begins no
    phrase.
    """

    def __init__(self, automaton: PhraseAutomaton) -> None:
        self._automaton = automaton
        self._state = automaton.root
        self._tail = ""  # the end of the text: what a match, and the border before it, may reach back to
        self._base = 0  # the offset of the tail
        self._ending: list[_Match] = []  # matches whose last border has not arrived
        self._certain: list[_Match] = []  # matches not yet reported, and those of the allowlist that may cover some
        self._reported = 0  # the end of the last reported match

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Takes the next piece of the text and returns the spans that became certain. ``final``: no piece follows."""
        text = self._tail + piece
        state = self._state
        for end, char in enumerate(piece, len(self._tail) + 1):
            state = state[char]
            if state.patterns:
                self._note(text, end, state)
        self._state = state
        self._settle_borders(text, final=final)
        live = self._base + len(text) if final else self._live(text)
        found = self._release(live)
        keep = min(len(text), self._automaton.max_extent + 2 * MAX_IGNORED)
        self._base += len(text) - keep
        self._tail = text[len(text) - keep :]
        return Scan(found, max(live, self._reported))

    def _note(self, text: str, end: int, state: State) -> None:
        """Keeps the phrases that end at ``end``."""
        folded = self._automaton.fold(text[end - 1])
        if not folded.strip(SEPARATOR):
            return  # the state is that of an earlier letter
        for pattern in state.patterns:
            start = self._start(text, end, pattern)
            if start is None:
                continue
            match = _Match(self._base + start, self._base + end, pattern)
            if pattern.ends_open or folded[-1] == SEPARATOR:
                self._certain.append(match)
            else:
                self._ending.append(match)

    def _start(self, text: str, end: int, pattern: Pattern) -> int | None:
        """Returns where in the text the phrase begins that ends at ``end``; None if the letters are not the phrase."""
        count, leet = len(pattern.folded), self._automaton.leet
        if not pattern.has_spaces and text[max(0, end - count) : end].lower() == pattern.plain:  # no disguise
            return end - count if pattern.begins_open or border_before(text, end - count) else None
        letters = letters_before(text, end, count, self._automaton.max_extent, leet=leet)
        return letters[0].start if len(letters) == count and pattern.is_spelled_by(letters) else None

    def _settle_borders(self, text: str, *, final: bool) -> None:
        waiting = []
        for match in self._ending:
            border = border_after(text, match.end - self._base, final=final)
            if border is None:
                waiting.append(match)
            elif border:
                self._certain.append(match)
        self._ending = waiting

    def _live(self, text: str) -> int:
        """Returns the offset before which no match begins that is yet to come."""
        end = self._base + len(text)
        starts = [match.start for match in self._ending]
        state: State | None = self._state
        anywhere = self._automaton.within_words
        if state is not None and state.depth:
            letters = letters_before(
                text, len(text), state.depth, self._automaton.max_extent, leet=self._automaton.leet
            )
            while state is not None and state.depth:
                if state.children and state.depth <= len(letters) and (anywhere or letters[-state.depth].border):
                    starts.append(self._base + letters[-state.depth].start)
                    break
                state = state.fail
        return min(starts, default=end)

    def _release(self, live: int) -> tuple[Span, ...]:
        """Returns the matches that begin before ``live``, and forgets what no later match needs."""
        found = []
        covered = 0  # the end of what the allowlist has covered
        for match in sorted(self._certain, key=_by_place):
            if match.pattern.kind is None:
                covered = max(covered, match.end)
            elif match.start < live and match.end > max(covered, self._reported):
                found.append(Span(max(match.start, self._reported), match.end, match.pattern.kind))
                self._reported = match.end
        self._certain = [
            match for match in self._certain if match.start >= live or (match.pattern.kind is None and match.end > live)
        ]
        return tuple(found)


def _by_place(match: _Match) -> tuple[int, int, bool]:
    """By beginning, the longest first, and the allowlist before the blocklist."""
    return match.start, -match.end, match.pattern.kind is not None
