"""One sequence of tokens on its way through the engine.

    tokens   [ prompt .................... | generated ........ ]
             [ computed: KV is in blocks ........ | pending ... ]

While decoding, the pending tokens are the last sampled one and the forced tokens after it. A beam has no pending token
until all beams of its search have been computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.api import Priority, SamplingParams, rank_of
from engine.decode.grammar import GrammarState
from engine.decode.lookup import PromptLookup
from engine.decode.rules import LogitRules
from engine.decode.sampling import Draw
from engine.kv.block_group import BlockTable
from engine.kv.prefix import Miss
from engine.seeds import choice_seed


class Status(StrEnum):
    """The status of a sequence, from waiting to finished."""

    WAITING = "waiting"  # in the waiting queue, without KV blocks
    PARKED = "parked"  # a beam without KV blocks that waits for other beams of its search, outside the queue
    RUNNING = "running"  # holds KV blocks for all its tokens, or those in the windows of its layers
    ENDED = "ended"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.WAITING: frozenset({Status.RUNNING, Status.ENDED}),
    Status.RUNNING: frozenset({Status.WAITING, Status.PARKED, Status.ENDED}),  # back to waiting: preempted
    Status.PARKED: frozenset({Status.WAITING, Status.ENDED}),
    Status.ENDED: frozenset(),
}


class IllegalTransitionError(RuntimeError):
    """A status change that ``TRANSITIONS`` does not allow. The sequence is left as it was."""


@dataclass(slots=True, eq=False)
class Sequence:
    """The state of one choice or beam of a request (vLLM's ``Request``, SGLang's ``Req``). ``seed`` and ``max_tokens``
    are resolved: they are never None here. Instants are seconds of the engine's clock."""

    request_id: str
    tokens: list[int]
    prompt_length: int
    sampling: SamplingParams
    cache_salt: str
    seed: int
    max_tokens: int
    status: Status = Status.WAITING
    tables: list[BlockTable] = field(default_factory=list)  # block table of each KV cache group; empty while waiting
    computed: int = 0  # tokens whose KV is in the blocks
    committed: int = 0  # computed tokens whose blocks are in the prefix index
    prefilled: int = 0  # most prompt tokens that had been computed when its blocks were freed
    digests: list[bytes] = field(default_factory=list)  # chained hashes of the first full blocks, as far as needed
    cached_tokens: int | None = None  # prompt tokens found in the prefix cache when first admitted
    miss: Miss | None = None  # why no more prompt tokens were found in the prefix cache
    tenant: str = ""
    priority: Priority = Priority.STANDARD
    continues: bool = False  # another replica had its request before
    surplus: bool = False  # its tenant has had its share, so it comes after those of all classes that are not surplus
    arrived: float = 0.0  # instant at which the request arrived
    deadline: float | None = None  # instant by which its first token must have been generated
    objective: float | None = None  # instant by which its first token is to be generated, if possible
    relegated_at: float | None = None  # instant at which the queue noticed that the objective had passed
    rules: LogitRules | None = None
    grammar: GrammarState | None = None
    lookup: PromptLookup | None = None
    draft: list[int] = field(default_factory=list)  # draft tokens that the next step verifies
    drafting: bool = False  # whether the draft model proposes the draft tokens, not prompt lookup
    drafted: int = 0  # tokens whose KV the draft model has computed
    choice: int = 0  # number of this choice or beam in its request
    scores_prompt: bool = False  # prompt log probabilities are still wanted, so no block comes from the prefix cache
    newest: int = 1  # tokens appended by the last step: the sampled one and the forced ones after it
    branches: int = 0  # further choices of the request, which start after the prompt
    candidates: int = 0  # candidate tokens per step of its beam search; 0: no beam search
    ahead: int = 0  # lookahead: positions after the last token that need blocks, for steps launched early
    reserve: bool = False  # allocates blocks for the whole answer at admission, and is never preempted
    queued_at: float = 0.0  # instant at which it last joined the waiting queue
    waited_s: float = 0.0  # seconds in the waiting queue before that
    first_wait_s: float = 0.0  # seconds in the waiting queue before its first admission
    uncached: int = 0  # tokens not in the prefix cache when it last joined the waiting queue
    level: int = 0  # priority class at its last admission, raised by its waiting time
    chunked: bool = False  # whether its prefill needed more than one chunk at its last admission
    overtaken: int = 0  # times that a later sequence was admitted because this one did not fit
    preemptions: int = 0
    preempted_at: list[float] = field(default_factory=list)  # instants; one list for all choices of the request
    generated_at_admission: int = 0  # tokens it had generated at its last admission
    last_token_at: float = 0.0  # instant at which its last token was emitted; 0: none yet

    @property
    def rank(self) -> int:
        """The place of its class in the order of scheduling (``rank_of``)."""
        return rank_of(self.priority, self.surplus)

    @property
    def pending(self) -> int:
        """Number of tokens whose KV must be computed before the next token can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def prompt_computed(self) -> int:
        """Number of prompt tokens that are computed, or were before its blocks were freed. Those found in the prefix
        cache count."""
        return max(self.prefilled, min(self.computed, self.prompt_length))

    @property
    def generated(self) -> int:
        """Number of tokens generated so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def held(self) -> bool:
        """Whether no token is pending. Then it is a beam that waits for the other beams of its search."""
        return self.pending == 0

    @property
    def decoding(self) -> bool:
        """Whether the sequence is in decode, not prefill: it has generated tokens, and only those that the last step
        appended are pending. False after a preemption until its tokens have been computed again, and for a beam that
        waits."""
        length = len(self.tokens)
        return 0 < length - self.computed <= self.newest and length > self.prompt_length

    @property
    def room(self) -> int:
        """Number of tokens that its KV blocks must have room for, draft tokens and lookahead included."""
        most = self.prompt_length + self.max_tokens
        return most if self.reserve else min(most, len(self.tokens) + self.ahead) + len(self.draft)

    @property
    def takes_largest(self) -> bool:
        """Whether the next token is the argmax of the unchanged logits and nothing else of them is needed: greedy
        decoding without rules, grammar, log probabilities, beam search or further choices."""
        params = self.sampling
        if params.temperature != 0 or self.rules is not None or self.grammar is not None:
            return False
        return not (self.candidates or self.branches or params.records_logprobs)

    def waited(self, now: float) -> float:
        """Returns the seconds that a waiting sequence has spent in the waiting queue up to the instant ``now``, in
        all."""
        return self.waited_s + max(0.0, now - self.queued_at)

    def advance_grammar(self) -> bool:
        """Advances the grammar by the new tokens (vLLM's ``accept_tokens``).

        Returns whether the grammar is complete, so that only the end of the answer may follow; False without a grammar.
        Raises GrammarError if the grammar does not allow a token or is too slow.
        """
        if self.grammar is None:
            return False
        self.grammar.read(self.tokens)
        return self.grammar.complete

    def draw(self, branch: int = 0, ahead: int = 0) -> Draw:
        """Returns how the next token is sampled. ``branch`` is the number of the choice whose first token it is;
        ``ahead`` counts the draft tokens before it."""
        seed = choice_seed(self.seed, branch)
        position = len(self.tokens) + ahead
        return Draw(self.sampling, seed, position, self.rules, self.tokens, self.grammar, self.candidates)

    def branch(self, choice: int, token: int) -> Sequence:
        """Returns a new waiting sequence: these tokens, and then ``token``. It has the number ``choice`` in its request
        and its own random numbers."""
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
            continues=self.continues,
            surplus=self.surplus,
            arrived=self.arrived,
            objective=self.objective,
            ahead=self.ahead,
            reserve=self.reserve,
            rules=None if self.rules is None else self.rules.branch(),
            grammar=None if self.grammar is None else self.grammar.copy(),
            lookup=None if self.lookup is None else self.lookup.branch(),
            digests=list(self.digests),
            last_token_at=self.last_token_at,
            preempted_at=self.preempted_at,
            choice=choice,
            candidates=self.candidates,
        )

    def move(self, status: Status) -> None:
        """Changes the status. Raises IllegalTransitionError for a change that ``TRANSITIONS`` does not allow."""
        if status not in TRANSITIONS[self.status]:
            raise IllegalTransitionError(f"{self.request_id}: {self.status} to {status}")
        self.status = status
