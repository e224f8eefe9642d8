"""``Replica``: continuous batching of one replica, in a number of events per request that its tokens do not raise.

Between two events the batch is fixed, so that the time of ``s`` steps has a closed form: with ``n`` sequences that each
add a token, ``s`` steps take ``s * step + kv_s * n * s**2 / 2`` seconds. Every sequence gains one token a step, so a
counter of steps gives the order in which sequences end: a request that starts to decode at step ``v`` ends at step
``v + output - 1``. A request costs three events (arrival, first token, end), each O(log n) in the sequences of the
replica. Steps are a continuous quantity.

Prefill is that of Manta's scheduler (engine/scheduler): prompts of one chunk go first, one after the other or, as the
profile says, several in a step; of longer ones MAX_PARTIAL_PREFILLS share what is left. Approximations: a step has a
chunk of one kind only; the first token comes with the last chunk; the cache is reserved for a request when it is
admitted, for its prompt and half of its output, which is what it holds on average, so nothing is preempted.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import islice
from math import inf, sqrt

from load_tests.simulation.profile import ReplicaProfile

MAX_PARTIAL_PREFILLS = 2  # EngineConfig.max_partial_prefills' default
STEP_EPSILON = 1e-6  # steps; ends that are nearer to each other are one event


class Replica:
    """The state of a replica at ``time``. Requests are numbers; the caller keeps their lengths."""

    __slots__ = (
        "_base_s",
        "_chunk_s",
        "_decoding",
        "_kv_s",
        "_lengths",
        "_long",
        "_next_is_prefill",
        "_next_steps",
        "_pace_s",
        "_sequence_s",
        "_share_s",
        "_shared",
        "_short",
        "_short_s",
        "_slowdown",
        "_step_s",
        "_together",
        "_work_s",
        "due",
        "kv_reserved",
        "kv_resident",
        "outstanding",
        "prefilling",
        "prefilling_s",
        "profile",
        "prompt_tokens",
        "scheduled_step_s",
        "short_s",
        "slot",
        "steps",
        "time",
        "waiting",
        "waiting_s",
        "waiting_tokens",
    )

    def __init__(self, profile: ReplicaProfile, slot: int, time: float) -> None:
        self.profile = profile
        self.slot = slot
        self.time = time
        self.due = inf  # when the next event happens
        self.steps = 0.0
        self.kv_resident = 0.0  # tokens of decoding sequences
        self.kv_reserved = 0  # tokens, prefilling sequences included
        self.prompt_tokens = 0  # of outstanding requests
        self.outstanding = 0  # requests that wait, prefill or decode
        self.waiting: deque[int] = deque()  # not admitted
        self.waiting_s = 0.0  # their prefill work
        self.waiting_tokens = 0  # that they need of the cache
        self.short_s = 0.0  # prefill work that is left of prompts of one chunk, waiting ones included
        self.prefilling = 0  # admitted requests without a first token
        self.prefilling_s = 0.0  # their prefill work that is left
        self._short: deque[int] = deque()  # of one chunk; the first one is in work
        self._short_s = 0.0  # left of the first one's, and of those in the same step
        self._together = 0  # further prompts in that step
        self._long: deque[int] = deque()  # of several chunks, not begun
        self._shared: list[tuple[float, int]] = []  # begun, ordered by (share of work at which it is done, request)
        self._share_s = 0.0  # prefill work that each of these has had since the first
        self._decoding: list[tuple[float, int]] = []  # heap of (step of the last token, request)
        self._lengths: dict[int, tuple[int, int, float]] = {}  # tokens of prompt and output, prefill work in seconds
        self._slowdown = profile.decode_slowdown
        self._step_s = profile.step_s
        self._sequence_s = profile.sequence_s
        self._kv_s = profile.kv_s
        self._chunk_s = profile.chunk_s
        self._work_s = profile.chunk_tokens / profile.prefill_tokens_s  # prefill work of a step with a whole chunk
        self._base_s, self._pace_s = self._chunk_s, self._work_s  # of the present step: its time, and its prefill work
        self._next_steps = 0.0
        self._next_is_prefill = False
        self.scheduled_step_s = 0.0  # ``step_now_s`` right after the last event

    @property
    def decoding(self) -> int:
        """The number of sequences that decode."""
        return len(self._decoding)

    @property
    def long_prompts(self) -> int:
        """The number of prompts of several chunks in prefill. Most of those that wait are, too."""
        return len(self._long) + len(self._shared) + len(self.waiting)

    @property
    def backlog_s(self) -> float:
        """Seconds of prefill work that is queued or in work."""
        seconds = self.waiting_s + self.prefilling_s
        return seconds if seconds > 0.0 else 0.0

    @property
    def step_now_s(self) -> float:
        """Seconds of a step of the present batch; 0 if there is none."""
        if not (self._decoding or self.prefilling):
            return 0.0
        base = self._base_s if self.prefilling else self._step_s
        return base + self._sequence_s * len(self._decoding) + self._kv_s * self.kv_resident

    def submit(self, now: float, request: int, prompt: int, output: int, work_s: float) -> None:
        """Takes a request of ``prompt`` and ``output`` tokens whose uncached part takes ``work_s`` to prefill.

        Raises ValueError if it can never fit the cache: it would block the queue for ever.
        """
        if prompt + output > self.profile.kv_tokens:
            raise ValueError(f"request {request}: {prompt + output} tokens do not fit {self.profile.kv_tokens}")
        self.advance(now)
        self._lengths[request] = (prompt, output, work_s)
        self.outstanding += 1
        self.prompt_tokens += prompt
        self.waiting.append(request)
        self.waiting_s += work_s
        self.waiting_tokens += prompt + output // 2
        if work_s <= self._work_s:
            self.short_s += work_s
        if len(self.waiting) == 1:
            self._admit()
        self._schedule()

    def advance(self, now: float) -> None:
        """Lets the steps until ``now`` happen; ``now`` is at most ``due``."""
        passed = now - self.time
        if passed <= 0:
            return
        self.time = now
        running = len(self._decoding)
        if self.prefilling:
            step = self._base_s + self._sequence_s * running + self._kv_s * self.kv_resident
        elif running:
            step = self._step_s + self._sequence_s * running + self._kv_s * self.kv_resident
        else:
            return
        growth = self._kv_s * running
        # The root of growth / 2 * s**2 + step * s = passed, in the form that loses no digits.
        steps = 2 * passed / (step + sqrt(step * step + 2 * growth * passed)) if growth else passed / step
        self._take(steps, running)
        left = self._next_steps - steps  # until ``due``
        self._next_steps = left if left > 0.0 else 0.0

    def fire(self) -> tuple[int, list[int]]:
        """Makes the event at ``due`` happen. Returns the request that gets its first token (-1: none), and those that
        end. A request of one token is in both."""
        running = len(self._decoding)
        self.time = self.due
        self._take(self._next_steps, running)
        ended: list[int] = []
        first = -1
        decoding = self._decoding
        lengths = self._lengths
        limit = self.steps + STEP_EPSILON
        while decoding and decoding[0][0] <= limit:
            request = heappop(decoding)[1]
            prompt, output, _ = lengths.pop(request)
            self.kv_resident -= prompt + output
            self.kv_reserved -= prompt + output // 2
            self.prompt_tokens -= prompt
            ended.append(request)
        if self._next_is_prefill:
            first = self._end_prefill()
            prompt, output, _ = lengths[first]
            if output == 1:
                del lengths[first]
                self.kv_reserved -= prompt + output // 2
                self.prompt_tokens -= prompt
                ended.append(first)
            else:
                heappush(decoding, (self.steps + output - 1, first))
                self.kv_resident += prompt + 1
        if ended:
            self.outstanding -= len(ended)
            if not decoding:
                self.kv_resident = 0.0  # nothing of rounding stays
        if self.waiting:
            self._admit()
        self._schedule()
        return first, ended

    def fail(self, now: float) -> list[tuple[int, int]]:
        """Returns the requests that a crash at ``now`` ends, each with the tokens that it has emitted, by number.

        The replica is not used afterwards.
        """
        self.advance(now)
        emitted = dict.fromkeys(self._lengths, 0)
        for end, request in self._decoding:
            output = self._lengths[request][1]
            emitted[request] = min(max(int(output - (end - self.steps)), 1), output - 1)
        self.due = inf
        return sorted(emitted.items())

    def withdraw(self, now: float) -> list[int]:
        """Takes back the requests that wait without a place, in order: another replica may have one sooner."""
        self.advance(now)
        taken = list(self.waiting)
        self.waiting.clear()
        self.waiting_s = 0.0
        self.waiting_tokens = 0
        for request in taken:
            prompt, _, work = self._lengths.pop(request)
            self.prompt_tokens -= prompt
            if work <= self._work_s:
                self.short_s -= work
        self.outstanding -= len(taken)
        self._schedule()
        return taken

    def _take(self, steps: float, running: int) -> None:
        self.steps += steps
        self.kv_resident += steps * running
        if self.prefilling:
            work = steps * self._pace_s
            self.prefilling_s -= work
            if self._short:
                self._short_s -= work
                self.short_s -= work
            else:
                self._share_s += work / len(self._shared)

    def _admit(self) -> None:
        """Moves waiting requests to prefill, first to last, while a place and cache are free."""
        profile = self.profile
        waiting = self.waiting
        while waiting and len(self._decoding) + self.prefilling < profile.max_sequences:
            prompt, output, work = self._lengths[waiting[0]]
            if self.kv_reserved + prompt + output // 2 > profile.kv_tokens:
                return
            request = waiting.popleft()
            self.kv_reserved += prompt + output // 2
            self.waiting_s -= work
            self.waiting_tokens -= prompt + output // 2
            self.prefilling += 1
            self.prefilling_s += work
            if work <= self._work_s:
                self._short.append(request)
                if len(self._short) == 1:
                    self._begin_short()
            else:
                self._long.append(request)
                self._begin_long()

    def _begin_short(self) -> None:
        """Begins the step of the first short prompt, with those behind it that find room there."""
        self._short_s = self._lengths[self._short[0]][2]
        self._together = 0
        if self.profile.short_tokens is None:
            return
        room_s = self.profile.short_tokens / self.profile.prefill_tokens_s - self._short_s
        for request in islice(self._short, 1, None):
            work = self._lengths[request][2]
            room_s -= work
            if room_s < 0:
                return
            self._short_s += work
            self._together += 1

    def _begin_long(self) -> None:
        while self._long and len(self._shared) < MAX_PARTIAL_PREFILLS:
            request = self._long.popleft()
            self._shared.append((self._share_s + self._lengths[request][2], request))
            self._shared.sort()

    def _end_prefill(self) -> int:
        """Takes the request out of prefill whose last chunk is computed, and returns it."""
        self.prefilling -= 1
        if self._short:
            request = self._short.popleft()
            if self._together:
                self._together -= 1
                self._short_s = 0.0
            elif self._short:
                self._begin_short()
        else:
            request = self._shared.pop(0)[1]
            if not self._shared:
                self._share_s = 0.0
            if self._long:
                self._begin_long()
        if not self.prefilling:
            self.prefilling_s = 0.0  # nothing of rounding stays
            if not self.waiting:
                self.short_s = 0.0
        return request

    def _set_pace(self, running: int, slowdown: float) -> None:
        """Sets the time and the prefill work of the next steps, beside ``running`` decodes: those with long prompts
        take ``slowdown`` times as long as the decodes alone, at most."""
        self._base_s, self._pace_s = self._chunk_s, self._work_s
        if not running or self._short:
            return
        alone_s = self._step_s + self._sequence_s * running + self._kv_s * self.kv_resident
        # What is computed while the weights are read costs no time.
        self._pace_s = min(self._work_s, self._step_s + (slowdown - 1) * alone_s)
        self._base_s = max(self._step_s, self._pace_s)

    def _schedule(self) -> None:
        """Finds the next event: the first prompt is prefilled, or the first sequence ends."""
        decoding = self._decoding
        running = len(decoding)
        if self.prefilling:
            if self._slowdown is not None:
                self._set_pace(running, self._slowdown)
            step = self._base_s + self._sequence_s * running + self._kv_s * self.kv_resident
            left_s = self._short_s if self._short else (self._shared[0][0] - self._share_s) * len(self._shared)
            steps = left_s / self._pace_s
            self._next_is_prefill = True
            if running:
                left = decoding[0][0] - self.steps
                if left < steps:
                    steps = left
                    self._next_is_prefill = False
        elif running:
            step = self._step_s + self._sequence_s * running + self._kv_s * self.kv_resident
            steps = decoding[0][0] - self.steps
            self._next_is_prefill = False
        else:
            self.due = inf
            self.scheduled_step_s = 0.0
            return
        if steps < 0:
            steps = 0.0
        self.scheduled_step_s = step
        self._next_steps = steps
        self.due = self.time + steps * (step + self._kv_s * running * steps / 2)
