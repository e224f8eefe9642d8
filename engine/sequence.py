"""One request on its way through the engine.

    tokens   [ prompt .................... | generated ........ ]
             [ computed: KV is in blocks ........ | pending ... ]

While decoding, the pending tokens are the one sampled last and those that a grammar let follow it. A beam has none
until all beams of its search have been computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.api import Priority, SamplingParams
from engine.decode.grammar import GrammarState
from engine.decode.lookup import PromptLookup
from engine.decode.random import choice_seed
from engine.decode.rules import LogitRules
from engine.decode.sampling import Draw
from engine.kv.block_group import BlockTable
from engine.kv.prefix import Miss


class Status(StrEnum):
    """Where a sequence is in its life."""

    WAITING = "waiting"  # holds no blocks
    PARKED = "parked"  # holds none either, and waits for the other beams of its search, not for its turn
    RUNNING = "running"  # holds blocks for all its tokens, or all that its layers see
    ENDED = "ended"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.WAITING: frozenset({Status.RUNNING, Status.ENDED}),
    Status.RUNNING: frozenset({Status.WAITING, Status.PARKED, Status.ENDED}),  # back to waiting: preempted
    Status.PARKED: frozenset({Status.WAITING, Status.ENDED}),
    Status.ENDED: frozenset(),
}


class IllegalTransitionError(RuntimeError):
    """A move that the table does not know; the sequence is left as it was."""


@dataclass(slots=True, eq=False)
class Sequence:
    """State of one request. ``seed`` and ``max_tokens`` are resolved: never None here."""

    request_id: str
    tokens: list[int]
    prompt_length: int
    sampling: SamplingParams
    cache_salt: str
    seed: int
    max_tokens: int
    status: Status = Status.WAITING
    tables: list[BlockTable] = field(default_factory=list)  # of each group of layers; none while it waits
    computed: int = 0  # tokens whose KV is in the blocks
    committed: int = 0  # of these, tokens whose blocks are in the prefix index
    digests: list[bytes] = field(default_factory=list)  # of the first full blocks
    cached_tokens: int | None = None  # prompt tokens found in the prefix cache when first admitted
    miss: Miss | None = None  # why not more of them
    tenant: str = ""
    priority: Priority = Priority.STANDARD
    arrived: float = 0.0  # seconds of the engine's clock, as all instants here
    deadline: float | None = None  # instant by which its first token has to be out
    rules: LogitRules | None = None
    grammar: GrammarState | None = None
    lookup: PromptLookup | None = None
    draft: list[int] = field(default_factory=list)  # guessed to follow, for one step
    drafting: bool = False  # by a smaller model
    drafted: int = 0  # tokens whose KV of the smaller model is in the blocks
    choice: int = 0  # its number among the choices of its request
    scores_prompt: bool = False  # logits after each of its prompt's tokens are wanted: none may come from the cache
    newest: int = 1  # tokens that came with the one sampled last, itself included
    branches: int = 0  # more choices that begin with its first token
    candidates: int = 0  # tokens that are looked at in each step of its beam search; 0: it is drawn
    ahead: int = 0  # tokens that are computed before anybody knows whether the answer goes so far
    reserve: bool = False  # holds blocks for the whole answer from the start, and keeps them
    queued_at: float = 0.0  # when it last began to wait
    waited_s: float = 0.0  # before that, in all
    level: int = 0  # class with which it was started last: ``priority``, less what waiting added
    piecemeal: bool = False  # when it was started last, more was to compute than fits into one chunk
    overtaken: int = 0  # times that a later one was started because this one did not fit
    preemptions: int = 0
    kept: int = 0  # tokens it had generated when it was started last
    told_at: float = 0.0  # when its last token came out

    @property
    def pending(self) -> int:
        """Tokens still to compute before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def held(self) -> bool:
        """Whether all its tokens are computed: it waits for the other beams of its search."""
        return self.pending == 0

    @property
    def decoding(self) -> bool:
        """Whether only the tokens of the last step are pending."""
        return 0 < self.pending <= self.newest and self.generated > 0

    @property
    def room(self) -> int:
        """Tokens that its blocks must hold."""
        most = self.prompt_length + self.max_tokens
        return most if self.reserve else min(most, len(self.tokens) + self.ahead) + len(self.draft)

    @property
    def takes_largest(self) -> bool:
        """Whether of its logits only the largest, and where it is, matters, and to itself alone."""
        params = self.sampling
        told = params.records_logprobs or self.candidates > 0 or self.branches > 0
        return params.temperature == 0 and self.rules is None and self.grammar is None and not told

    def waited(self, now: float) -> float:
        """Seconds in which it held no blocks, up to ``now``, at which it still waits."""
        return self.waited_s + max(0.0, now - self.queued_at)

    def follows_grammar(self) -> bool:
        """Whether its tokens are a whole answer by its grammar, to which nothing can be added. Raises GrammarError for
        tokens that do not follow it."""
        if self.grammar is None:
            return False
        self.grammar.read(self.tokens)
        return self.grammar.complete

    def draw(self, branch: int = 0, ahead: int = 0) -> Draw:
        """How its next token is chosen, or the first one of a branch, or the one after ``ahead`` that are guessed."""
        seed = choice_seed(self.seed, branch)
        position = len(self.tokens) + ahead
        return Draw(self.sampling, seed, position, self.rules, self.tokens, self.grammar, self.candidates)

    def branch(self, choice: int, token: int) -> Sequence:
        """The choice that begins with ``token`` after the same prompt."""
        return Sequence(
            request_id=self.request_id,
            tokens=[*self.tokens, token],
            prompt_length=self.prompt_length,
            sampling=self.sampling,
            cache_salt=self.cache_salt,
            seed=choice_seed(self.seed, choice),
            max_tokens=self.max_tokens,
            tenant=self.tenant,
            priority=self.priority,
            arrived=self.arrived,
            ahead=self.ahead,
            reserve=self.reserve,
            rules=None if self.rules is None else self.rules.branch(),
            grammar=None if self.grammar is None else self.grammar.copy(),
            lookup=None if self.lookup is None else self.lookup.branch(),
            digests=list(self.digests),
            told_at=self.told_at,
            choice=choice,
            candidates=self.candidates,
        )

    def move(self, status: Status) -> None:
        """Raises IllegalTransitionError for a move the table does not know."""
        if status not in TRANSITIONS[self.status]:
            raise IllegalTransitionError(f"{self.request_id}: {self.status} to {status}")
        self.status = status
