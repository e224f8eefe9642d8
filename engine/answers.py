"""The requests under way: what steps bring them, told as deltas, until they end.

A failure inside one sequence ends its request with an ERROR delta; its blocks are free again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from torch import Tensor

from engine.admission import Admission, Job
from engine.api import Delta, FinishReason, RequestError, UnsatisfiableError, Usage
from engine.counters import Counters
from engine.decode.beams import Candidates, Step, Whole
from engine.decode.drawing import Drawn, Found
from engine.decode.grammar import GrammarError
from engine.failures import log_failure
from engine.forward import SpoiltGuessError
from engine.metrics import Recorder
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Chunk
from engine.search import Search
from engine.sequence import Sequence, Status
from engine.sequence_group import Group


class Answers:
    """Of one engine. ``scheduler`` is the one of now; ``clock`` tells the seconds of the engine."""

    def __init__(
        self,
        admission: Admission,
        scheduler: Scheduler,
        counters: Counters,
        recorder: Recorder,
        clock: Callable[[], float],
        most_forced: int,
    ) -> None:
        self.scheduler = scheduler
        self._admission = admission
        self._counters = counters
        self._recorder = recorder
        self._clock = clock
        self._most_forced = most_forced
        self._groups: dict[str, Group] = {}
        self._searches: dict[str, Search] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._groups

    def begin(self, job: Job) -> None:
        """Queues a request. Raises RequestError for an id that is in use."""
        request_id = job.sequence.request_id
        if request_id in self._groups:
            raise RequestError(f"request_id {request_id!r} is in use", "request_id")
        group = self._groups[request_id] = Group(job)
        if group.search is not None:
            self._searches[request_id] = group.search
        self.scheduler.add(job.sequence)

    def abort(self, request_id: str) -> None:
        """Ends a request without a delta, if it is under way."""
        if request_id in self._groups:
            self._break(request_id)
            self._counters.aborted += 1

    def make_way(self) -> None:
        """Before a step: beams that wait for others of their search, which have no blocks, give up theirs."""
        for search in self._searches.values():
            for job in search.stranded():
                self.scheduler.park(job.sequence)

    def score_prompt(self, chunk: Chunk, logits: Tensor) -> None:
        """``logits`` [rows, vocab] float32 after tokens of a prompt that are to be scored."""
        self._admission.score_prompt(self._groups[chunk.sequence.request_id].first, chunk, logits)

    def emit(self, sequence: Sequence, outcome: Found) -> list[Delta]:
        """What a step has brought a sequence, or why it failed: the deltas of its request."""
        group = self._groups.get(sequence.request_id)
        if group is None or sequence.choice not in group.live:
            return []  # another choice of its request has failed in this step
        if isinstance(outcome, SpoiltGuessError):
            sequence.lookup = None
            self.scheduler.requeue(sequence, self._clock())
            return []
        if isinstance(outcome, Exception):
            return [self.fail(sequence.request_id, outcome)]
        deltas: list[Delta] = []
        try:
            deltas += self._go_on(group, group.live[sequence.choice], outcome)
        except Exception as error:  # noqa: BLE001 - the fault boundary of a request: it fails alone
            deltas.append(self.fail(sequence.request_id, error))
        return deltas

    def expire(self, request_id: str) -> Delta:
        """A request has waited for too long."""
        self._counters.expired += 1
        return Delta(request_id, (), "", FinishReason.DEADLINE, self._break(request_id))

    def fail(self, request_id: str, error: Exception) -> Delta:
        """Something raised in a request."""
        self._counters.failed += 1
        grammar = self._groups[request_id].first.sequence.sampling.grammar
        if grammar is not None and isinstance(error, GrammarError):
            self._admission.grammars.forget(grammar, error)
        usage = self._break(request_id)
        if isinstance(error, UnsatisfiableError):
            return Delta(request_id, (), "", FinishReason.REFUSED, usage, str(error))
        log_failure("a request", error)
        return Delta(request_id, (), "", FinishReason.ERROR, usage, f"The engine failed: {type(error).__name__}")

    def forsake(self) -> list[str]:
        """The scheduler is lost, and all blocks with it: marks every sequence as ended, and names the requests."""
        for job in (job for group in self._groups.values() for job in group.live.values()):
            job.sequence.tables = []
            if job.sequence.status is not Status.ENDED:
                job.sequence.move(Status.ENDED)
        return list(self._groups)

    def _go_on(self, group: Group, job: Job, found: list[Drawn] | Candidates) -> Iterable[Delta]:
        """Makes a sequence, or the search that it belongs to, longer."""
        if isinstance(found, list):
            yield from self._lengthen(group, job, found)
        elif group.search is not None and group.search.take(job, found):
            yield from self._advance(group, group.search)

    def _lengthen(self, group: Group, job: Job, drawn: list[Drawn]) -> Iterable[Delta]:
        """Adds a token to a sequence, and begins the branches that start from it."""
        sequence = job.sequence
        if sequence.max_tokens == 0:  # only the prompt was wanted
            yield from self._stop_at_prompt(group, job)
            return
        if not sequence.branches:
            sequence.tokens.append(drawn[-1].token)
            yield self._tell(group, job, drawn)
            return
        own, *others = drawn
        jobs = [job, *(self._branch(group, job, number, one.token) for number, one in enumerate(others, start=1))]
        sequence.branches = 0
        sequence.tokens.append(own.token)
        for each, one in zip(jobs, drawn, strict=True):
            yield self._tell(group, each, [one])

    def _stop_at_prompt(self, group: Group, job: Job) -> Iterable[Delta]:
        """The prompt is computed, and all choices of its request are empty."""
        name, choices = job.sequence.request_id, job.sequence.sampling.choices
        of_prompt = self._admission.prompt_logprobs(job)
        logprobs = () if job.sequence.sampling.records_logprobs else None
        usage = self._finish(group, job)
        for choice in range(choices):
            first, last = choice == 0, choice + 1 == choices
            told, counted = of_prompt if first else None, usage if last else None
            yield Delta(name, (), "", FinishReason.LENGTH, counted, None, logprobs, choice, told)

    def _branch(self, group: Group, job: Job, number: int, token: int) -> Job:
        """Another sequence of a request, on the blocks of ``job``; without room for it, in the queue."""
        branch = self._admission.branch(job, number, token)
        if not self.scheduler.fork(job.sequence, branch.sequence):
            self.scheduler.add_fork(branch.sequence, self._clock())
        group.live[number] = branch
        return branch

    def _advance(self, group: Group, search: Search) -> Iterable[Delta]:
        """All beams of a search are there: the next ones, or what was found."""
        steps = search.advance()
        if not steps:
            yield from self._conclude(group, search.answers(group.first.sequence.sampling.n))
            return
        before = search.jobs
        for place in sorted(set(range(len(before))) - {step.parent for step in steps}):
            self._drop(group, before[place])  # first, for the room
        places = sorted(enumerate(steps), key=lambda one: one[1].parent)
        jobs: dict[int, Job] = {}
        for parent, children in groupby(places, key=lambda one: one[1].parent):
            jobs |= self._part(group, search, before[parent], list(children))
        search.follow([jobs[place] for place in range(len(steps))])

    def _part(self, group: Group, search: Search, job: Job, steps: list[tuple[int, Step]]) -> dict[int, Job]:
        """The beams that come from one, by their places: itself with a token more, and others beside it."""
        (first, own), *others = steps
        jobs = {place: self._branch(group, job, next(search.names), step.token) for place, step in others}
        job.lengthen(own.token)
        if job.sequence.status is Status.PARKED:
            self.scheduler.unpark(job.sequence, self._clock())
        return {first: job, **jobs}

    def _drop(self, group: Group, job: Job) -> None:
        """A beam is given up."""
        group.leave(job.sequence.choice)
        if job.sequence.status is not Status.ENDED:
            self.scheduler.remove(job.sequence)

    def _conclude(self, group: Group, wholes: list[Whole]) -> Iterable[Delta]:
        """A search is over: its request ends with these answers."""
        first, name = group.first, group.first.sequence.request_id
        written = [self._admission.write(first, whole) for whole in wholes]
        of_prompt = self._admission.prompt_logprobs(first)
        for job in list(group.live.values()):
            self._drop(group, job)
        group.completion_tokens = sum(len(whole.hypothesis.tokens) for whole in wholes)
        self._recorder.told([first.sequence], self._clock())
        self._recorder.ended(first.sequence, group.completion_tokens, finished=True)
        self._counters.generated_tokens += group.completion_tokens
        self._counters.finished += 1
        self._forget(name)
        for choice, (whole, (text, logprobs)) in enumerate(zip(wholes, written, strict=True)):
            usage = group.usage if choice + 1 == len(wholes) else None
            tokens, told = tuple(whole.hypothesis.tokens), of_prompt if choice == 0 else None
            yield Delta(name, tokens, text, whole.reason, usage, None, logprobs, choice, told, whole.score)

    def _tell(self, group: Group, job: Job, drawn: list[Drawn]) -> Delta:
        """What a sequence's newest tokens, which were ``drawn``, add to its answer; ends it with the last."""
        sequence = job.sequence
        tokens, text, reason = job.accept(len(drawn), self._most_forced)
        logprobs = self._admission.logprobs(*drawn[-1], job.output)
        of_prompt = self._admission.prompt_logprobs(job)
        self._counters.generated_tokens += len(tokens)
        usage = None if reason is None else self._finish(group, job)
        return Delta(sequence.request_id, tokens, text, reason, usage, None, logprobs, sequence.choice, of_prompt)

    def _finish(self, group: Group, job: Job) -> Usage | None:
        """Ends a choice; the usage of its request if that was its last."""
        ended = len(group.live) == 1
        self._leave(group, job.sequence, finished=ended)
        if not ended:
            return None
        self._forget(job.sequence.request_id)
        self._counters.finished += 1
        return group.usage

    def _break(self, request_id: str) -> Usage:
        """Ends a request with all its choices."""
        group = self._groups[request_id]
        self._forget(request_id)
        for job in list(group.live.values()):
            if group.search is not None:
                self._drop(group, job)
                continue
            del job.sequence.tokens[job.sent :]  # guessed right, or drawn for a branch, and in no delta
            self._leave(group, job.sequence, finished=False)
        if group.search is not None:
            self._recorder.ended(group.first.sequence, 0, finished=False)
        return group.usage

    def _forget(self, request_id: str) -> None:
        del self._groups[request_id]
        self._searches.pop(request_id, None)

    def _leave(self, group: Group, sequence: Sequence, finished: bool) -> None:
        """A sequence, unless the scheduler has let go of it already, gives its blocks back."""
        group.leave(sequence.choice)
        if sequence.status is not Status.ENDED:
            self.scheduler.remove(sequence)
        self._recorder.ended(sequence, sequence.generated, finished)
