"""Placements: which of the simulated replicas gets a request. That of the cluster, and its peers.

``PredictedTtft`` is the cluster's: ``place``, ``predict`` and ``PlacedRequests`` themselves choose, from loads that are
as old as reports may be and from what each router has sent since. Peers see everything at once, without delay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol
from zlib import crc32

from cluster.lanes.placed_requests import PlacedRequests
from cluster.lanes.replica_choice import Candidate, place
from engine.api import Priority
from load_tests.simulation.fleet import Fleet
from load_tests.simulation.replica import MAX_PARTIAL_PREFILLS, Replica
from load_tests.simulation.trace import BLOCK_TOKENS
from router.ports.replica_load import ReplicaLoad

FEW = 16
"""Up to this number of ready replicas all are looked at for a request. Of more, those that have the prefix, and
the two with the least prefill work."""


class Asked(NamedTuple):
    """A request that needs a replica."""

    number: int
    chain: Sequence[int]  # prefix blocks
    prompt: int  # tokens
    now: float


class Placement(Protocol):
    """Chooses a slot for each request. One object for each simulation."""

    def choose(self, fleet: Fleet, asked: Asked) -> int:
        """Returns the slot for a request. At least one replica is ready."""
        ...

    def first_token(self, request: int, now: float) -> None:
        """Called at the first token of a request."""
        ...


class RoundRobin:
    """One replica after the other."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, fleet: Fleet, asked: Asked) -> int:
        slots = sorted(fleet.ready)
        self._last = next((slot for slot in slots if slot > self._last), slots[0])
        return self._last

    def first_token(self, request: int, now: float) -> None: ...


class LeastOutstanding:
    """The replica with the fewest requests."""

    def choose(self, fleet: Fleet, asked: Asked) -> int:
        return min(fleet.ready, key=lambda slot: (fleet.replica(slot).outstanding, _tie(asked, slot)))

    def first_token(self, request: int, now: float) -> None: ...


class Affinity:
    """The replica with the longest prefix of at least ``least_share`` of the prompt, whatever its load. The one with
    the fewest requests if none has that."""

    def __init__(self, least_share: float = 0.0) -> None:
        self._least_share = least_share

    def choose(self, fleet: Fleet, asked: Asked) -> int:
        enough = self._least_share * len(asked.chain)

        def key(slot: int) -> tuple[int, int, int]:
            matched = fleet.prefixes.matched(slot, asked.chain)
            return -matched if matched >= enough else 0, fleet.replica(slot).outstanding, _tie(asked, slot)

        return min(fleet.ready, key=key)

    def first_token(self, request: int, now: float) -> None: ...


class WeighedSequences:
    """The number of sequences, plus two for a prompt that is not cached: Manta's placement before it predicted."""

    def choose(self, fleet: Fleet, asked: Asked) -> int:
        blocks = max(1, len(asked.chain))

        def cost(slot: int) -> tuple[float, int]:
            replica = fleet.replica(slot)
            queued = replica.outstanding * (1 + replica.kv_reserved / replica.profile.kv_tokens)
            return queued + 2.0 * (1 - fleet.prefixes.matched(slot, asked.chain) / blocks), _tie(asked, slot)

        return min(fleet.ready, key=cost)

    def first_token(self, request: int, now: float) -> None: ...


@dataclass(slots=True)
class _View:
    """What one router knows of a replica."""

    name: str
    since: float  # when the replica got ready: a slot is used again
    reported_at: float = -1e9
    load: ReplicaLoad = field(default_factory=ReplicaLoad)
    placed: PlacedRequests = field(default_factory=PlacedRequests)
    sent_since: bool = False  # a request was sent there after the report

    def is_complete(self, now: float) -> bool:
        """Whether nothing is left to add to the report: it is of this instant, and has every request and the learnt
        correction."""
        return self.reported_at == now and not self.sent_since


class PredictedTtft:
    """The cluster's placement, by ``routers`` that get every n-th request each. A replica reports its load to each of
    them every ``report_s`` seconds; 0: at once.

    ``errors`` has the predicted and the measured TTFT of each request, in seconds.
    """

    def __init__(self, output_tokens: float, affinity_weight: float, routers: int = 1, report_s: float = 0.0) -> None:
        self.errors: list[tuple[float, float]] = []
        self._output_tokens = output_tokens
        self._affinity_weight = affinity_weight
        self._report_s = report_s
        self._views: list[dict[int, _View]] = [{} for _ in range(routers)]
        self._placed: dict[int, _View] = {}

    def choose(self, fleet: Fleet, asked: Asked) -> int:
        number, chain, prompt, now = asked
        views = self._views[number % len(self._views)]
        candidates = []
        matched = 0
        for slot in self._looked_at(fleet, chain):
            replica = fleet.replica(slot)
            view = self._view(views, fleet.ready[slot], replica, now)
            if chain:
                matched = min(fleet.prefixes.matched(slot, chain) * BLOCK_TOKENS, prompt - 1)
            load = view.load if view.is_complete(now) else view.placed.outlook(view.load, now)
            candidates.append(Candidate(view.name, load, replica.outstanding, matched))
        request_id = str(number)
        choice = place(candidates, request_id, prompt, Priority.STANDARD, self._affinity_weight)
        if choice is None:
            raise LookupError("no replica is ready")
        chosen, ttft_s = choice
        slot = int(chosen.replica_id)
        view = views[slot]
        uncached = prompt - chosen.matched_tokens
        view.sent_since = True
        view.placed.place(request_id, Priority.STANDARD, uncached, chosen.load, ttft_s, now)
        view.placed.accepted(request_id)
        self._placed[number] = view
        return slot

    def first_token(self, request: int, now: float) -> None:
        if (view := self._placed.pop(request, None)) is not None:
            view.placed.first_token(str(request), now)

    def _note_error(self, predicted_s: float, measured_s: float) -> None:
        self.errors.append((predicted_s, measured_s))

    def _looked_at(self, fleet: Fleet, chain: Sequence[int]) -> Iterable[int]:
        if len(fleet.ready) <= FEW:
            return sorted(fleet.ready)
        least = fleet.two_cheapest()
        return dict.fromkeys((*least, *fleet.prefixes.holders(chain))) if chain else least

    def _view(self, views: dict[int, _View], since: float, replica: Replica, now: float) -> _View:
        view = views.get(replica.slot)
        if view is None or view.since != since:
            view = views[replica.slot] = _View(str(replica.slot), since, placed=PlacedRequests(self._note_error))
        if now - view.reported_at >= self._report_s:
            replica.advance(now)
            learnt = view.placed.learnt
            view.load = load_of(replica, self._output_tokens, len(self._views), learnt.factor, learnt.overhead_s)
            view.reported_at, view.sent_since = now, False
            view.placed.reported(now)
        return view


def load_of(
    replica: Replica, output_tokens: float, routers: int = 1, correction: float = 1.0, overhead_s: float = 0.0
) -> ReplicaLoad:
    """Returns what a replica would report, with answers of ``output_tokens`` on average, and with the ``correction``
    and ``overhead_s`` that a router has learnt of it."""
    profile = replica.profile
    chunk, tokens_s = profile.chunk_tokens, profile.prefill_tokens_s
    decoding, waiting = replica.decoding, len(replica.waiting)
    running = decoding + replica.prefilling
    short = round(replica.short_s * tokens_s)
    if short < 0:
        short = 0
    long = round(replica.backlog_s * tokens_s) - short
    kv_reserved = replica.kv_reserved
    return ReplicaLoad(  # by position, which takes half as long as by name
        running,
        waiting,
        kv_reserved,  # blocks_used
        profile.kv_tokens,  # blocks_total
        0.0,  # wait_s
        decoding,
        (0, short, 0),  # queued_short
        (0, long if long > 0 else 0, 0),  # queued_long
        profile.step_s,
        profile.prompt_token_s,
        profile.sequence_s + (profile.kv_s * replica.kv_resident / decoding if decoding else 0.0),
        2 * chunk + decoding,  # step_tokens: short prompts and long ones each have a chunk
        chunk,  # long_step_tokens
        chunk,  # long_beside_decodes
        chunk,  # prefill_chunk
        profile.max_sequences,
        output_tokens,
        kv_reserved + running * output_tokens / 2 + replica.waiting_tokens,  # kv_demand_tokens
        profile.kv_tokens,  # kv_capacity_tokens
        replica.long_prompts,
        MAX_PARTIAL_PREFILLS,  # long_at_once
        routers,  # lanes
        0,  # free_prompt_tokens
        correction,
        overhead_s,
    )


PEERS: dict[str, Callable[[], Placement]] = {
    "round-robin": RoundRobin,
    "least-outstanding": LeastOutstanding,
    "affinity": Affinity,
    "affinity-half": partial(Affinity, 0.5),  # as routers have it that match half of the prompt
    "weighed-sequences": WeighedSequences,
}
"""The peers by name."""

PREDICTED = "predicted-ttft"


def _tie(asked: Asked, slot: int) -> int:
    return crc32(f"{asked.number}/{slot}".encode())
