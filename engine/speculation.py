"""``Speculator``: decides how many draft tokens each sequence gets in a step, and which proposer makes them.

While a step reads the weights once for all its rows, a few more rows cost little. So draft tokens fill a step up to
that number of rows, and with many running sequences there are none. A draft model also takes time to propose; it is
used only while measurements say that answers are generated faster with it than without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.draft_model import DRAFT_PLACEHOLDER
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState

NEWEST = 0.2  # weight of the newest step in moving averages
SAMPLE = 4  # consecutive steps measured with the draft model, and without it
MAX_FAILURES = 3  # errors of the draft model after which it is no longer used
RENEWAL = 100  # steps after which the alternative that is not in use is measured again


@dataclass(slots=True)
class _StepRate:
    """Moving averages of the tokens and seconds of a step, over steps with the draft model or over steps without it."""

    tokens: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    age: int = 0  # steps of the other kind since the last one of this kind

    def observe(self, tokens: int, seconds: float) -> None:
        """Adds a step that generated ``tokens`` tokens in ``seconds``."""
        weight = max(NEWEST, 1 / (self.steps + 1))
        self.tokens += weight * (tokens - self.tokens)
        self.seconds += weight * (seconds - self.seconds)
        self.steps += 1
        self.age = 0

    @property
    def rate(self) -> float:
        """Tokens generated per second; infinity before anything was measured."""
        return self.tokens / self.seconds if self.seconds > 0 else float("inf")


@dataclass(slots=True)
class DraftModelSwitch:
    """Decides whether the draft model is used, for one number of running sequences, by which generates more tokens per
    second: steps with it (``drafted``) or without it (``plain``)."""

    plain: _StepRate = field(default_factory=_StepRate)
    drafted: _StepRate = field(default_factory=_StepRate)
    left: int = 0  # steps left in which the slower alternative is measured again

    def wanted(self) -> bool:
        """Decides whether the draft model proposes in this step, and counts the steps of a renewed measurement. Call it
        once per step."""
        if self.plain.steps < SAMPLE:
            return False
        if self.drafted.steps < SAMPLE:
            return True
        better = self.drafted.rate >= self.plain.rate
        other = self.plain if better else self.drafted
        if self.left == 0 and other.age >= RENEWAL:
            self.left = SAMPLE
        if self.left > 0:
            self.left -= 1
            return not better
        return better

    def learn(self, drafted: bool, tokens: int, seconds: float) -> None:
        """Records a step that generated ``tokens`` tokens in ``seconds``. ``drafted``: it used the draft model."""
        one, other = (self.drafted, self.plain) if drafted else (self.plain, self.drafted)
        one.observe(tokens, seconds)
        other.age += 1


@dataclass(slots=True)
class Speculator:
    """Decides how many draft tokens each sequence gets. ``most`` limits the draft tokens of a sequence, ``rows`` the
    rows of a step, other rows included. Prompt lookup proposes first; if it finds nothing and ``drafts`` is set, the
    draft model proposes."""

    most: int
    rows: int
    drafts: bool = False
    proposed: int = 0  # draft tokens verified since the start
    accepted: int = 0  # draft tokens accepted since the start
    failures: int = 0  # errors of the draft model
    _switches: dict[int, DraftModelSwitch] = field(default_factory=dict)  # by the number of running sequences
    _run: float = 1.0  # moving average of the draft model's accepted tokens per step and sequence

    def propose(self, running: Sequence[SequenceState]) -> None:
        """Sets the draft tokens of the ``running`` sequences: those of prompt lookup, or placeholders that the draft
        model is to replace. Sets none if any sequence is in prefill, since such a step is long anyway."""
        if not self.most or not running or not all(sequence.decoding for sequence in running):
            return
        each = min(self.most, self.rows // len(running) - 1)
        if each < 1:
            return
        drafts = self.drafts and self._switches.setdefault(len(running), DraftModelSwitch()).wanted()
        for sequence in running:
            left = sequence.max_tokens - sequence.generated - 1
            if sequence.lookup is not None and sequence.pending == 1 and left > 0:
                sequence.draft = sequence.lookup.propose(sequence.tokens, min(each, left))
                if drafts and not sequence.draft:
                    sequence.draft = [DRAFT_PLACEHOLDER] * min(each, left, round(self._run) + 1)
                    sequence.drafting = True

    def learn(self, sequence: SequenceState, proposed: int, accepted: int) -> None:
        """Records that ``accepted`` of the ``proposed`` draft tokens of a sequence were accepted."""
        self.proposed += proposed
        self.accepted += accepted
        if sequence.drafting:
            self._run += NEWEST * (accepted - self._run)
        elif sequence.lookup is not None:
            sequence.lookup.learn(proposed, accepted)

    def failed(self) -> None:
        """Records an error of the draft model. After MAX_FAILURES it is no longer used."""
        self.failures += 1
        self.drafts = self.failures < MAX_FAILURES

    def took(self, chunks: Sequence[Chunk], tokens: int, seconds: float) -> None:
        """Records that a step over ``chunks`` generated ``tokens`` tokens in ``seconds``. Only a step of decodes counts
        in which all draft tokens came from the draft model, or there were none."""
        switch = self._switches.get(len(chunks))
        guessed = any(chunk.draft for chunk in chunks)
        drafted = any(chunk.sequence.drafting for chunk in chunks)
        if switch is not None and guessed == drafted and all(chunk.sequence.generated > 1 for chunk in chunks):
            switch.learn(drafted, tokens, seconds)

    def forget(self, chunks: Iterable[Chunk]) -> None:
        """Removes the draft tokens of a finished step, and counts the draft model's KV of rejected ones as not
        computed."""
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.draft, sequence.drafting = [], False
            # The draft model has not read the last token.
            sequence.drafted = min(sequence.drafted, len(sequence.tokens) - 1)
