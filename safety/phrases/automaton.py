"""``PhraseAutomaton``: all phrases of a blocklist and an allowlist as one automaton over folded letters.

Aho and Corasick, "Efficient string matching: an aid to bibliographic search", 1975. A state reads the original
character: its folded form is looked up once per state and character, then kept in the state, so that the loop over a
text is one look-up per character. Characters that fold to nothing and separators leave the state as it is; whether
spaces are in the right places is tested where letters match (``Pattern.is_spelled_by``).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable

from safety.phrases.phrase import Pattern, Phrase, compile_phrase
from safety.text.confusables import LEET
from safety.text.folding import SEPARATOR, fold

MAX_CACHED = 1024
"""The characters that a state remembers. Texts with more different ones are folded again."""


class State(dict[str, "State"]):
    """A state: the longest suffix of the letters read so far that begins a phrase. It is a mapping from an original
    character to the next state.

    ``depth`` is the number of these letters; ``fail`` the state of their longest proper suffix; ``patterns`` those that
    end here.
    """

    __slots__ = ("_fold", "children", "depth", "fail", "patterns")

    def __init__(self, depth: int, fold_char: Callable[[str], str]) -> None:
        super().__init__()
        self._fold = fold_char
        self.depth = depth
        self.children: dict[str, State] = {}
        self.fail: State | None = None
        self.patterns: tuple[Pattern, ...] = ()

    def __missing__(self, char: str) -> State:
        state = self
        for part in self._fold(char):
            if part != SEPARATOR:
                state = state.read(part)
        if len(self) < MAX_CACHED:
            self[char] = state
        return state

    def read(self, letter: str) -> State:
        """Returns the state of the automaton after one more letter, which is folded (lower case, without accents)."""
        state = self
        while letter not in state.children:
            if state.fail is None:
                return state
            state = state.fail
        return state.children[letter]


class PhraseAutomaton:
    """The compiled lists; scanners share it. ``version`` identifies the lists.

    A match is at most ``max_extent`` characters of the original long: four times the letters of the longest phrase, and
    64. A phrase with more ignorable characters and separators in between is not found. A text of N characters takes N
    look-ups; 1,000 phrases compile in about 30 ms.
    """

    def __init__(self, blocked: Iterable[Phrase], allowed: Iterable[str] = (), *, leet: bool = False) -> None:
        """``leet``: digits stand for letters too. Raises ValueError for a phrase without letters; see
        ``compile_phrase``."""
        patterns = [
            compile_phrase(phrase.text, phrase.kind, leet=leet, within_words=phrase.within_words) for phrase in blocked
        ]
        patterns += [compile_phrase(text, None, leet=leet) for text in allowed]
        self.leet = leet
        self.within_words = any(pattern.within_words for pattern in patterns)
        self.fold = _fold_leet if leet else fold
        self.root = _build(patterns, self.fold)
        self.max_extent = 4 * max((len(pattern.folded) for pattern in patterns), default=0) + 64
        self.version = _version(patterns, leet)


def _fold_leet(char: str) -> str:
    return LEET.get(char) or fold(char)


def _build(patterns: Iterable[Pattern], fold_char: Callable[[str], str]) -> State:
    root = State(0, fold_char)
    for pattern in patterns:
        state = root
        for letter in pattern.folded:
            if letter not in state.children:
                state.children[letter] = State(state.depth + 1, fold_char)
            state = state.children[letter]
        state.patterns += (pattern,)
    _link(root)
    return root


def _link(root: State) -> None:
    """Sets each state's ``fail``, by breadth, and adds the patterns of the suffixes."""
    queue = deque([root])
    while queue:
        parent = queue.popleft()
        for letter, state in parent.children.items():
            state.fail = root if parent.fail is None else parent.fail.read(letter)
            state.patterns += state.fail.patterns
            queue.append(state)


def _version(patterns: Iterable[Pattern], leet: bool) -> str:
    lines = sorted(f"{pattern.kind}\t{pattern.plain}\t{pattern.spaced}\t{pattern.within_words}" for pattern in patterns)
    return hashlib.sha256("\n".join([str(leet), *lines]).encode()).hexdigest()[:12]
