"""How much is guessed in a step, and what guesses were worth.

Rows that are computed beside others are nearly free as long as one reading of the weights serves them all. So guesses
fill up to that many rows and no more: with many sequences at once nothing is guessed. Guesses of a smaller model take
time besides; they are made while tokens come faster with them than without, which is measured all along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.draft import TO_COME
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState

NEWEST = 0.2  # weight of the newest step in what is known of steps
SAMPLE = 4  # steps in a row that are measured of each kind
MAX_FAILURES = 3
RENEWAL = 100  # steps after which the kind that is not in use is measured again


@dataclass(slots=True)
class _Kind:
    """Steps of one kind: tokens and seconds of a step, as they were of late."""

    tokens: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    age: int = 0  # steps of the other kind since

    def observe(self, tokens: int, seconds: float) -> None:
        weight = max(NEWEST, 1 / (self.steps + 1))
        self.tokens += weight * (tokens - self.tokens)
        self.seconds += weight * (seconds - self.seconds)
        self.steps += 1
        self.age = 0

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else float("inf")


@dataclass(slots=True)
class Worth:
    """Whether a smaller model's guesses pay, where so many sequences run."""

    plain: _Kind = field(default_factory=_Kind)
    guessed: _Kind = field(default_factory=_Kind)
    left: int = 0  # steps of the sample under way

    def wanted(self) -> bool:
        """Whether to guess in this step."""
        if self.plain.steps < SAMPLE:
            return False
        if self.guessed.steps < SAMPLE:
            return True
        better = self.guessed.rate >= self.plain.rate
        other = self.plain if better else self.guessed
        if self.left == 0 and other.age >= RENEWAL:
            self.left = SAMPLE
        if self.left > 0:
            self.left -= 1
            return not better
        return better

    def learn(self, guessed: bool, tokens: int, seconds: float) -> None:
        """A step has brought so many tokens."""
        one, other = (self.guessed, self.plain) if guessed else (self.plain, self.guessed)
        one.observe(tokens, seconds)
        other.age += 1


@dataclass(slots=True)
class Speculator:
    """Decides how many draft tokens each sequence gets. ``most`` limits the tokens per sequence, ``rows`` the rows of a
    step including non-draft rows. Prompt lookup is tried first; if it finds nothing and ``drafts`` is set, the draft
    model proposes."""

    most: int
    rows: int
    drafts: bool = False
    guessed: int = 0
    right: int = 0
    failures: int = 0  # of the smaller model
    _worth: dict[int, Worth] = field(default_factory=dict)  # by sequences that run
    _run: float = 1.0  # tokens that a smaller model has had right in a row of late

    def guess(self, running: Sequence[SequenceState]) -> None:
        """Gives drafts to decoding sequences, or the number of guesses to come. None while a prompt is computed: that
        step is long enough."""
        if not self.most or not running or not all(sequence.decoding for sequence in running):
            return
        each = min(self.most, self.rows // len(running) - 1)
        if each < 1:
            return
        drafts = self.drafts and self._worth.setdefault(len(running), Worth()).wanted()
        for sequence in running:
            left = sequence.max_tokens - sequence.generated - 1
            if sequence.lookup is not None and sequence.pending == 1 and left > 0:
                sequence.draft = sequence.lookup.guess(sequence.tokens, min(each, left))
                if drafts and not sequence.draft:
                    sequence.draft = [TO_COME] * min(each, left, round(self._run) + 1)
                    sequence.drafting = True

    def learn(self, sequence: SequenceState, guessed: int, right: int) -> None:
        """Of so many tokens that were guessed the first ``right`` were drawn."""
        self.guessed += guessed
        self.right += right
        if sequence.drafting:
            self._run += NEWEST * (right - self._run)
        elif sequence.lookup is not None:
            sequence.lookup.learn(guessed, right)

    def failed(self) -> None:
        """The smaller model has raised an error; of one that does again and again no more is asked."""
        self.failures += 1
        self.drafts = self.failures < MAX_FAILURES

    def took(self, chunks: Sequence[Chunk], tokens: int, seconds: float) -> None:
        """A step took so long and brought so many tokens. Of interest is one of decodes, guessed by the smaller model
        or not at all."""
        worth = self._worth.get(len(chunks))
        guessed = any(chunk.draft for chunk in chunks)
        drafted = any(chunk.sequence.drafting for chunk in chunks)
        if worth is not None and guessed == drafted and all(chunk.sequence.generated > 1 for chunk in chunks):
            worth.learn(drafted, tokens, seconds)

    def forget(self, chunks: Iterable[Chunk]) -> None:
        """A step is over: no draft outlives it, and what a smaller model read of wrong guesses is worth nothing."""
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.draft, sequence.drafting = [], False
            sequence.drafted = min(sequence.drafted, len(sequence.tokens) - 1)  # the last was drawn, not guessed
