"""``StartRate``: how fast a tier gives first tokens to waiting requests, as this router sees it."""

from __future__ import annotations

from math import log

from engine.api import Priority, rank_of

MIN_DEPTH, MIN_DEPTH_EACH = 8, 2
"""Waiting requests from which on the time counts, in all and for each replica. With fewer, the tier gives first tokens
as fast as requests arrive, which says nothing of how fast it could: a prompt in prefill waits, too."""
MIN_SECONDS, MIN_STARTS = 0.25, 16
"""How much must have been observed before the rate counts."""
STALE_S = 10.0
"""Seconds without such a queue after which the rate is forgotten. Otherwise one that is too low would be for ever: it
has all but a few requests refused, and a few are no queue from which to learn another."""


LITTLE = 0.75
"""The part of an equal share below which a tenant has had little."""
RANKS = range(rank_of(Priority.INTERACTIVE, surplus=False), rank_of(Priority.BATCH, surplus=True) + 1)
"""The ranks of all classes, those of surplus requests last."""
LEAST_SHARE = 0.005
"""The share of the started tokens below which a tenant is no longer counted."""


class StartRate:
    """Tokens of started requests per second, an exponential average with a half-life of ``half_life_s`` seconds.

    Only time counts in which at least MIN_DEPTH requests waited, and MIN_DEPTH_EACH for each of ``replicas``. The rate
    includes all that bounds it: prefill, decode, KV blocks, the number of replicas, and what other routers get. ``now``
    is in seconds of the monotonic clock.
    """

    def __init__(self, half_life_s: float = 5.0) -> None:
        self._half_life_s = half_life_s
        self._then: float | None = None  # instant of the last observation; None if too few waited then
        self._counted_at = float("-inf")  # instant up to which time was counted
        self._tokens = dict.fromkeys(RANKS, 0.0)  # by class
        self._tenants: dict[str, float] = {}  # the same tokens by tenant, without those that have had hardly any
        self._starts = 0.0
        self._seconds = 0.0
        self._known = False
        self.replicas = 1
        self.paused = False
        """Whether the tier has no replica. Until a first request starts, time says nothing of how fast it is."""

    def observe(
        self,
        now: float,
        waiting: int,
        rank: int = Priority.STANDARD,
        starts: int = 0,
        tokens: int = 0,
        tenant: str = "",
    ) -> None:
        """Records that ``starts`` requests of a class and a tenant, with ``tokens`` tokens, got their first token since
        the last observation, and ``waiting`` requests of all classes still wait at the instant ``now``."""
        if self._stale(now):
            self._forget()
        if self.paused and not starts:
            self._then = None
            return
        self.paused = False
        if self._then is not None:
            decay, seconds = self._passed(now)
            for each in self._tokens:
                self._tokens[each] *= decay
            self._tokens[rank] += tokens
            if starts:
                least = LEAST_SHARE * sum(self._tokens.values())
                self._tenants = {name: decay * had for name, had in self._tenants.items() if decay * had > least}
                self._tenants[tenant] = self._tenants.get(tenant, 0.0) + tokens
            else:
                self._tenants = {name: decay * had for name, had in self._tenants.items()}
            self._starts = self._starts * decay + starts
            self._seconds = self._seconds * decay + seconds
            self._known = self._known or (self._seconds >= MIN_SECONDS and self._starts >= MIN_STARTS)
            self._counted_at = now
        self._then = now if waiting >= max(MIN_DEPTH, MIN_DEPTH_EACH * self.replicas) else None

    def tokens_per_s(self, now: float) -> float | None:
        """Returns the rate of all classes together at the instant ``now``; None until enough was observed, and after
        STALE_S seconds without a queue. It falls while nothing starts."""
        if not self._known or self._stale(now):
            return None
        decay, seconds = self._passed(now)
        return decay * sum(self._tokens.values()) / (self._seconds * decay + seconds)

    def has_little(self, tenant: str) -> bool:
        """Returns whether a tenant has had clearly less than an equal share of the started tokens."""
        tenants = len(self._tenants.keys() | {tenant})
        return self._tenants.get(tenant, 0.0) < LITTLE * sum(self._tenants.values()) / tenants

    def share(self, rank: int, now: float) -> float:
        """Returns the share of the started tokens that were those of a class and of the classes above it, 0 to 1, at
        the instant ``now``."""
        total = 0.0 if self._stale(now) else sum(self._tokens.values())
        return sum(tokens for each, tokens in self._tokens.items() if each <= rank) / total if total else 0.0

    def _passed(self, now: float) -> tuple[float, float]:
        """Returns the factor of what was observed earlier, and the seconds since then, which count less the longer ago
        they were, as tokens do."""
        elapsed = 0.0 if self._then is None else max(0.0, now - self._then)
        decay: float = 0.5 ** (elapsed / self._half_life_s)
        return decay, (1.0 - decay) * self._half_life_s / log(2)

    def _stale(self, now: float) -> bool:
        """Returns whether there has been no queue for too long."""
        return self._then is None and now - self._counted_at > STALE_S

    def _forget(self) -> None:
        self._tokens = dict.fromkeys(RANKS, 0.0)
        self._tenants = {}
        self._starts = self._seconds = 0.0
        self._known = False
