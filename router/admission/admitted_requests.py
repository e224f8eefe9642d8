"""``AdmittedRequests``: the requests of one tier that this router has admitted: those that wait for their first
token, and those that run.

A request is counted when it is admitted, in the same step of the event loop as the decision, so that two requests never
get the same room. Its ``Ticket`` gives the room back: with the first token, at the end, on an error and on a
cancellation alike, once. Lives as long as the router.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from router.admission.start_rate import RANKS, StartRate
from router.admission.tenant_shares import TenantShares
from router.admission.wait_limit import WaitLimit

Line = tuple[int, str]
"""The rank of a scheduling class (``rank_of``) and a tenant. The rank of a class whose requests are not surplus is the
class itself."""


@dataclass(slots=True)
class Count:
    """Requests, the tokens that they are expected to cost, and those of their prompts."""

    requests: int = 0
    tokens: int = 0
    prompt_tokens: int = 0


@dataclass(slots=True)
class Prompts:
    """Prompts without a first token, and their tokens that a replica has to compute."""

    count: int = 0
    tokens: int = 0

    def add(self, count: int, tokens: int) -> None:
        """Adds prompts. Takes them away if the numbers are negative."""
        self.count += count
        self.tokens += tokens


@dataclass(slots=True)
class WaitingLine(Count):
    """The waiting requests of one tenant in one class. ``tickets`` has the instant of each admission, oldest first.
    ``started`` counts the requests that have got their first token since the line was last empty."""

    tickets: dict[Ticket, float] = field(default_factory=dict)
    started: int = 0


class Ticket:
    """The place of one admitted request: waiting, then running, then gone. ``tokens`` is its expected work, as in
    ``RequestFacts.tokens``. ``objective_s`` is the objective for its time to the first token, in seconds; None: it has
    none. ``in_time``: the request was predicted to meet its objective, so that a miss is the prediction's fault.
    ``alone_s`` is the predicted time to its first token if nothing else waited, in seconds. Both methods may be called
    again, without effect; ``now`` is on the clock of ``AdmittedRequests``."""

    def __init__(
        self,
        admitted: AdmittedRequests,
        line: Line,
        requests: int,
        tokens: int,
        prompt_tokens: int,
        objective_s: float | None,
        in_time: bool,
        alone_s: float = 0.0,
    ) -> None:
        self._admitted = admitted
        self._waits = True
        self._gone = False
        self.line = line
        self.requests = requests
        self.tokens = tokens
        self.prompt_tokens = prompt_tokens
        self.objective_s = objective_s
        self.in_time = in_time
        self.alone_s = alone_s
        self.places: dict[int, tuple[str, int]] = {}
        """The replica that has a prompt and the tokens that it has to compute, by the prompt's index."""
        self.turn = 0
        """How many of its line have started once twice as many have as were before it."""

    @property
    def passed(self) -> bool:
        """Whether more than twice as many requests of its line have started as were before it, while it waits: it is
        held back by its own length or its replica, and its wait says little of the line. Of a single replica it does.
        Requests that need no engine after all, such as cache hits, pass none."""
        return self._admitted.rate.replicas > 1 and self.turn < self._admitted.lines[self.line].started

    @property
    def unplaced(self) -> Prompts:
        """Its prompts that no replica is known to have, and their part of its tokens."""
        left = max(0, self.requests - len(self.places))
        return Prompts(left, self.prompt_tokens * left // max(1, self.requests))

    def placed(self, prompt: int, replica_id: str, tokens: int) -> None:
        """Records that a replica has the prompt with the index ``prompt``, and ``tokens`` of it to compute; the last of
        several has it. Has no effect after the first token."""
        if self._waits:
            self._admitted.move(self, prompt, (replica_id, tokens))

    def started(self, now: float) -> None:
        """Gives the place back because the first token has come, at the instant ``now``. The rate of the tier and the
        limit of its predictions learn from it."""
        if not self._waits:
            return
        self._waits, admitted, (rank, tenant) = False, self._admitted, self.line
        passed = self.passed
        admitted.lines[self.line].started += self.requests
        waited_s = now - admitted.leave(self)
        admitted.running[rank] += self.requests
        admitted.rate.observe(now, admitted.total.requests, rank, self.requests, self.tokens, tenant)
        if self.objective_s is not None and self.in_time and not (passed and waited_s > self.objective_s):
            admitted.limits[rank].observe(now, waited_s, self.objective_s)

    def release(self, now: float) -> None:
        """Ends the request at the instant ``now``: gives its place back, if its first token has not come."""
        if self._gone:
            return
        self._gone = True
        if self._waits:
            self._waits = False
            self._admitted.leave(self)
            self._admitted.rate.observe(now, self._admitted.total.requests)
        else:
            self._admitted.running[self.line[0]] -= self.requests


class AdmittedRequests:
    """The counts of one tier, by scheduling class and tenant. Classes are given by their ranks. Instants are seconds of
    one clock."""

    def __init__(self) -> None:
        self.lines: dict[Line, WaitingLine] = {}
        self.total = Count()
        self._unplaced = {rank: Prompts() for rank in RANKS}  # waiting ones that no replica is known to have, by rank
        self._placed: dict[tuple[str, int], Prompts] = {}  # the other waiting ones, by replica id and rank
        self.running = dict.fromkeys(RANKS, 0)  # requests between their first and their last token, by rank
        self.rate = StartRate()
        self.refused_at = dict.fromkeys(RANKS, float("-inf"))  # instant of the last refusal, by rank
        self.limits = {rank: WaitLimit() for rank in RANKS}
        self.shares = TenantShares()

    def take(
        self,
        rank: int,
        tenant: str,
        requests: int,
        tokens: int,
        now: float,
        prompt_tokens: int = 0,
        objective_s: float | None = None,
        *,
        in_time: bool = True,
        replicas: int = 1,
        alone_s: float = 0.0,
    ) -> Ticket:
        """Counts one more request, which has ``requests`` prompts, and returns its place. ``tokens``, ``objective_s``,
        ``in_time`` and ``alone_s`` are as in ``Ticket``. ``replicas`` are those of the tier; without one, the wait of
        the request says nothing of a tier that runs."""
        counts = in_time and replicas > 0
        ticket = Ticket(self, (rank, tenant), requests, tokens, prompt_tokens, objective_s, counts, alone_s)
        line = self.lines.setdefault(ticket.line, WaitingLine())
        ticket.turn = line.started + 2 * line.requests
        line.tickets[ticket] = now
        for count in (line, self.total):
            count.requests += requests
            count.tokens += tokens
            count.prompt_tokens += prompt_tokens
        self._count_prompts(ticket, 1)
        self.rate.paused, self.rate.replicas = not replicas, replicas
        self.rate.observe(now, self.total.requests)
        return ticket

    def leave(self, ticket: Ticket) -> float:
        """Removes a waiting request from the counts. Returns the instant at which it was admitted. Called by its ticket
        alone, once."""
        self._count_prompts(ticket, -1)
        line = self.lines[ticket.line]
        since = line.tickets.pop(ticket)
        for count in (line, self.total):
            count.requests -= ticket.requests
            count.tokens -= ticket.tokens
            count.prompt_tokens -= ticket.prompt_tokens
        if not line.tickets:
            del self.lines[ticket.line]
        return since

    def move(self, ticket: Ticket, prompt: int, place: tuple[str, int]) -> None:
        """Counts a prompt of a waiting request, given by its index, at ``place`` from now on: the id of a replica, and
        the tokens that it has to compute. Called by its ticket alone."""
        rank, unplaced = ticket.line[0], self._unplaced[ticket.line[0]]
        before, old = ticket.unplaced, ticket.places.get(prompt)
        ticket.places[prompt] = place
        after = ticket.unplaced
        unplaced.add(after.count - before.count, after.tokens - before.tokens)
        self._count_placed(rank, place, 1)
        if old is not None:
            self._count_placed(rank, old, -1)

    def on(self, replica_id: str, *ranks: int) -> Prompts:
        """Returns the waiting prompts of classes that a replica has, with the tokens that it had to compute when they
        were sent there."""
        return _sum(self._placed[replica_id, rank] for rank in ranks if (replica_id, rank) in self._placed)

    def unplaced(self, *ranks: int, alive: Collection[str] | None = None) -> Prompts:
        """Returns the waiting prompts of classes that no replica is known to have, and those of replicas that are not
        ``alive``, which will go to others; None: all are."""
        waiting = [self._unplaced[rank] for rank in ranks]
        if alive is not None:
            waiting += [
                each for (replica_id, rank), each in self._placed.items() if rank in ranks and replica_id not in alive
            ]
        return _sum(waiting)

    def of(self, *ranks: int) -> Count:
        """Returns the counts of the waiting requests of classes."""
        lines = [line for (each, _), line in self.lines.items() if each in ranks]
        return Count(
            sum(line.requests for line in lines),
            sum(line.tokens for line in lines),
            sum(line.prompt_tokens for line in lines),
        )

    def own(self, rank: int, tenant: str) -> Count:
        """Returns the counts of a tenant's waiting requests in a class."""
        return self.lines.get((rank, tenant)) or Count()

    def oldest_s(self, rank: int, tenant: str, now: float) -> float:
        """Returns how long the oldest waiting request of a tenant in a class has waited, in seconds; 0 if none waits.
        Requests that have missed their objective do not count, since the engine puts them behind the others. Neither
        do those whose own prompts may take half of that: they delay none on another replica. Nor do those that others
        have passed."""
        line = self.lines.get((rank, tenant))
        waits = () if line is None else ((now - since, ticket) for ticket, since in line.tickets.items())
        of_others = (
            wait
            for wait, ticket in waits
            if wait > 2 * ticket.alone_s
            and not ticket.passed
            and (ticket.objective_s is None or wait <= ticket.objective_s)
        )
        return next(of_others, 0.0)

    def waiting_of(self, tenant: str) -> int:
        """Returns the number of waiting requests of a tenant, of all classes."""
        return sum(line.requests for (_, name), line in self.lines.items() if name == tenant)

    def tenants(self, rank: int, tenant: str) -> int:
        """Returns the number of tenants with waiting requests in a class, ``tenant`` counted among them."""
        return len({name for each, name in self.lines if each == rank} | {tenant})

    def backlog(self, rank: int) -> int:
        """Returns the tokens of the requests that wait in a class and in the classes above it."""
        return sum(line.tokens for (each, _), line in self.lines.items() if each <= rank)

    def lacks(self, rank: int, patience_s: float, now: float) -> bool:
        """Returns whether a class gets too little: its oldest request has waited longer than ``patience_s`` seconds, or
        one was refused within them."""
        firsts = (next(iter(line.tickets.values())) for (each, _), line in self.lines.items() if each == rank)
        return now - min(firsts, default=now) > patience_s or now - self.refused_at[rank] < patience_s

    def ahead(self, rank: int, tenant: str, tokens: int) -> int:
        """Returns the tokens that the engine would serve before a new request of ``tokens`` tokens: those of higher
        classes, and those of its own that are before it."""
        higher = sum(line.tokens for (each, _), line in self.lines.items() if each < rank)
        return higher + self.ahead_in_class(rank, tenant, tokens)

    def ahead_in_class(self, rank: int, tenant: str, tokens: int) -> int:
        """Returns the tokens of a class that are before a new request of ``tokens`` tokens. Tenants take turns, so of
        each other tenant no more counts than this one has waiting, the new request included."""
        before = {name: line.tokens for (each, name), line in self.lines.items() if each == rank}
        own = before.pop(tenant, 0)
        return own + sum(min(others, own + tokens) for others in before.values())

    def _count_prompts(self, ticket: Ticket, sign: int) -> None:
        """Adds the prompts of a request to those of the replicas that have them and to the unplaced ones, or takes them
        away, if ``sign`` is -1."""
        rank, unplaced = ticket.line[0], ticket.unplaced
        self._unplaced[rank].add(sign * unplaced.count, sign * unplaced.tokens)
        for place in ticket.places.values():
            self._count_placed(rank, place, sign)

    def _count_placed(self, rank: int, place: tuple[str, int], sign: int) -> None:
        """Adds a prompt to those that a replica has, or takes it away, if ``sign`` is -1."""
        replica_id, tokens = place
        there = self._placed.setdefault((replica_id, rank), Prompts())
        there.add(sign, sign * tokens)
        if not there.count:
            del self._placed[replica_id, rank]


def _sum(prompts: Iterable[Prompts]) -> Prompts:
    total = Prompts()
    for each in prompts:
        total.add(each.count, each.tokens)
    return total
