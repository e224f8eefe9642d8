"""The requests in progress. Turns the sampled tokens of each step into deltas until a request ends (vLLM's output
processor, together with the end-of-request part of its scheduler).

An error inside one sequence ends its request with an ERROR delta and frees its KV blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from torch import Tensor

from engine.admission import Admission, Job
from engine.api import Delta, FinishReason, RequestError, UnsatisfiableError, Usage
from engine.beam_search import Search
from engine.counters import Counters
from engine.decode.beams import FinishedHypothesis, Step
from engine.decode.drawing import Drawn, SampleOutcome
from engine.decode.grammar import GrammarError
from engine.forward import FailedDraftError
from engine.log_failure import log_failure
from engine.metrics import Recorder
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence, Status
from engine.sequence_group import SequenceGroup


class OutputProcessor:
    """Turns the results of steps into deltas, and ends the requests that are complete. It owns the requests in progress
    of one engine. ``scheduler`` is the current scheduler, which the engine may replace. ``clock`` returns seconds.
    ``most_forced`` limits the forced tokens per sequence and step."""

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
        self._groups: dict[str, SequenceGroup] = {}
        self._searches: dict[str, Search] = {}
        self._ended: list[Delta] = []  # last deltas of requests that resume a whole answer, for the next step

    def __len__(self) -> int:
        """Returns the number of requests in progress."""
        return len(self._groups) + len(self._ended)

    def __contains__(self, request_id: str) -> bool:
        """Returns whether a request with this id is in progress."""
        return request_id in self._groups

    def begin(self, job: Job) -> None:
        """Starts a request by queueing its first sequence. One that resumes a whole answer, of which only the end was
        not sent, ends with the next step. Raises RequestError for a request id that is in use."""
        request_id = job.sequence.request_id
        if request_id in self._groups:
            raise RequestError(f"request_id {request_id!r} is in use", "request_id")
        if job.ended is not None:
            self._ended.append(self._end_of(job.sequence, *job.ended))
            return
        group = self._groups[request_id] = SequenceGroup(job)
        if group.search is not None:
            self._searches[request_id] = group.search
        self.scheduler.add(job.sequence)

    def abort(self, request_id: str) -> Delta | None:
        """Ends all choices of the request and frees their KV blocks. Returns a final delta without text, with finish
        reason ABORT and the usage; None for an unknown id.

        The usage is as ``_break`` returns it."""
        if request_id not in self._groups:
            return None
        self._counters.aborted += 1
        return Delta(request_id, (), "", FinishReason.ABORT, self._break(request_id))

    def take_ended(self) -> list[Delta]:
        """Removes the last deltas of requests that resume a whole answer, and returns them."""
        taken, self._ended = self._ended, []
        return taken

    def park_stranded(self) -> None:
        """Frees the KV blocks of beams that wait for other beams of their search which have none. Called before each
        step."""
        for search in self._searches.values():
            for job in search.stranded():
                self.scheduler.park(job.sequence)

    def score_prompt(self, chunk: Chunk, logits: Tensor) -> None:
        """Records log probabilities of prompt tokens from ``logits`` [rows, vocab] float32, the rows of ``chunk`` that
        score the prompt."""
        self._admission.score_prompt(self._groups[chunk.sequence.request_id].first, chunk, logits)

    def emit(self, sequence: Sequence, outcome: SampleOutcome) -> list[Delta]:
        """Applies the outcome of a step to ``sequence``: appends the sampled tokens, starts further choices or beams
        after the prompt, and ends the choice or the beam search if it is finished. Returns the resulting deltas, one
        for each choice concerned; none if the choice has ended in this step already.

        A FailedDraftError yields no delta: the sequence is queued again, and gets no more tokens from prompt lookup.
        Any other error ends the whole request with one delta; see ``fail``."""
        group = self._groups.get(sequence.request_id)
        if group is None or sequence.choice not in group.live:
            return []  # the request has ended in this step by the failure of another choice
        if isinstance(outcome, Exception):
            if not isinstance(outcome, FailedDraftError):
                return [self.fail(sequence.request_id, outcome)]
            sequence.lookup = None
            self.scheduler.requeue(sequence, self._clock())
            return []
        deltas: list[Delta] = []
        try:
            job = group.live[sequence.choice]
            if isinstance(outcome, list):
                deltas += self._lengthen(group, job, outcome)
            elif group.search is not None and group.search.take(job, outcome):
                deltas += self._advance(group, group.search)
        except Exception as error:  # noqa: BLE001 - the fault boundary of a request: it fails alone
            deltas.append(self.fail(sequence.request_id, error))
        if deltas and deltas[-1].usage is not None:
            first = group.first.sequence
            deltas[-1].waited_s = first.first_wait_s
            deltas[-1].preempted_s = tuple(at - first.arrived for at in first.preempted_at) or None
        return deltas

    def expire(self, request_id: str) -> Delta:
        """Ends a request whose deadline passed while it waited. Returns its only delta, with DEADLINE and the usage,
        which is as ``_break`` returns it: nothing, unless it was preempted in its prompt."""
        self._counters.expired += 1
        return Delta(request_id, (), "", FinishReason.DEADLINE, self._break(request_id))

    def fail(self, request_id: str, error: Exception) -> Delta:
        """Ends a request in which ``error`` was raised, with all its choices. Returns its last delta: REFUSED with the
        error's message for an UnsatisfiableError, else ERROR with the type of the error, which is logged. After a
        GrammarError, also removes the compiled grammar from the cache."""
        self._counters.failed += 1
        grammar = self._groups[request_id].first.sequence.sampling.grammar
        if grammar is not None and isinstance(error, GrammarError):
            self._admission.grammars.forget(grammar, error)
        usage = self._break(request_id)
        if isinstance(error, UnsatisfiableError):
            return Delta(request_id, (), "", FinishReason.REFUSED, usage, str(error))
        log_failure("a request", error, request_id)
        return Delta(request_id, (), "", FinishReason.ERROR, usage, f"The engine failed: {type(error).__name__}")

    def drop_all(self) -> list[str]:
        """Marks every sequence as ended without freeing blocks, since scheduler and KV cache are about to be replaced.
        Returns the ids of all requests; the caller ends each with ``fail``."""
        for job in (job for group in self._groups.values() for job in group.live.values()):
            job.sequence.tables = []
            if job.sequence.status is not Status.ENDED:
                job.sequence.move(Status.ENDED)
        return list(self._groups)

    def _end_of(self, sequence: Sequence, text: str, reason: FinishReason) -> Delta:
        """Returns the only delta of a request that resumes a whole answer. No token is computed for it."""
        self._counters.finished += 1
        logprobs = () if sequence.sampling.records_logprobs else None
        usage = Usage(sequence.prompt_length, sequence.generated, 0)
        return Delta(sequence.request_id, (), text, reason, usage, None, logprobs)

    def _lengthen(self, group: SequenceGroup, job: Job, drawn: list[Drawn]) -> Iterable[Delta]:
        """Appends the drawn tokens to a sequence, or starts the choices of a request after its prompt."""
        sequence = job.sequence
        if sequence.max_tokens == 0:  # the request wants only the prompt computed and scored
            return self._stop_at_prompt(group, job)
        if sequence.branches:
            return self._start_choices(group, job, drawn)
        sequence.tokens.append(drawn[-1].token)
        return (self._tell(group, job, drawn),)

    def _start_choices(self, group: SequenceGroup, job: Job, drawn: list[Drawn]) -> Iterable[Delta]:
        """Starts the other choices of a request after its prompt. Each choice has one of the drawn tokens as its
        first."""
        sequence = job.sequence
        own, *others = drawn
        jobs = [job, *(self._branch(group, job, number, one.token) for number, one in enumerate(others, start=1))]
        sequence.branches = 0
        sequence.tokens.append(own.token)
        for each, one in zip(jobs, drawn, strict=True):
            yield self._tell(group, each, [one])

    def _stop_at_prompt(self, group: SequenceGroup, job: Job) -> Iterable[Delta]:
        """Ends a request with ``max_tokens`` 0 once its prompt is computed: all its choices are empty."""
        name, choices = job.sequence.request_id, job.sequence.sampling.choices
        of_prompt = self._admission.prompt_logprobs(job)
        logprobs = () if job.sequence.sampling.records_logprobs else None
        usage = self._finish(group, job)
        for choice in range(choices):
            first, last = choice == 0, choice + 1 == choices
            prompt, counted = of_prompt if first else None, usage if last else None
            yield Delta(name, (), "", FinishReason.LENGTH, counted, None, logprobs, choice, prompt)

    def _branch(self, group: SequenceGroup, job: Job, number: int, token: int) -> Job:
        """Starts another sequence of a request, which shares the KV blocks of ``job``. Queues it if it cannot run
        yet."""
        branch = self._admission.branch(job, number, token)
        if not self.scheduler.fork(job.sequence, branch.sequence):
            self.scheduler.add_fork(branch.sequence, self._clock())
        group.live[number] = branch
        return branch

    def _advance(self, group: SequenceGroup, search: Search) -> Iterable[Delta]:
        """Takes one step of a beam search, whose beams have all been computed. Continues with the next beams, or ends
        the request with the answers found."""
        steps = search.advance()
        if not steps:
            yield from self._conclude(group, search.answers(group.first.sequence.sampling.n))
            return
        before = search.jobs
        for place in sorted(set(range(len(before))) - {step.parent for step in steps}):
            self._drop(group, before[place])  # first, so that the new beams can use its blocks
        places = sorted(enumerate(steps), key=lambda one: one[1].parent)
        jobs: dict[int, Job] = {}
        for parent, children in groupby(places, key=lambda one: one[1].parent):
            jobs |= self._part(group, search, before[parent], list(children))
        search.follow([jobs[place] for place in range(len(steps))])

    def _part(self, group: SequenceGroup, search: Search, job: Job, steps: list[tuple[int, Step]]) -> dict[int, Job]:
        """Continues the beam ``job`` with ``steps``: the first lengthens ``job`` itself, and each other one starts a
        beam that shares its blocks. Returns all these beams by their places among the new beams."""
        (first, own), *others = steps
        jobs = {place: self._branch(group, job, next(search.names), step.token) for place, step in others}
        job.lengthen(own.token)
        if job.sequence.status is Status.PARKED:
            self.scheduler.unpark(job.sequence, self._clock())
        return {first: job, **jobs}

    def _drop(self, group: SequenceGroup, job: Job) -> None:
        """Removes a beam without an answer."""
        group.leave(job.sequence.choice)
        if job.sequence.status is not Status.ENDED:
            self.scheduler.remove(job.sequence)

    def _conclude(self, group: SequenceGroup, finished: list[FinishedHypothesis]) -> Iterable[Delta]:
        """Ends the request of a finished beam search with one delta per answer."""
        first, name = group.first, group.first.sequence.request_id
        written = [self._admission.write(first, whole) for whole in finished]
        of_prompt = self._admission.prompt_logprobs(first)
        for job in list(group.live.values()):
            self._drop(group, job)
        group.completion_tokens = sum(len(whole.hypothesis.tokens) for whole in finished)
        self._recorder.tokens_emitted([first.sequence], self._clock())
        self._recorder.ended(first.sequence, group.completion_tokens, finished=True)
        self._counters.generated_tokens += group.completion_tokens
        self._counters.finished += 1
        self._forget(name)
        for choice, (whole, (text, logprobs)) in enumerate(zip(finished, written, strict=True)):
            usage = group.usage if choice + 1 == len(finished) else None
            tokens, prompt = tuple(whole.hypothesis.tokens), of_prompt if choice == 0 else None
            yield Delta(name, tokens, text, whole.reason, usage, None, logprobs, choice, prompt, whole.score)

    def _tell(self, group: SequenceGroup, job: Job, drawn: list[Drawn]) -> Delta:
        """Turns a sequence's newest tokens, which were ``drawn``, and the forced tokens after them into the delta of
        its choice. Ends the choice if they end its answer."""
        sequence = job.sequence
        tokens, text, reason = job.accept(len(drawn), self._most_forced)
        token, scored = drawn[-1]
        logprobs = None if scored is None else self._admission.logprobs(token, scored, job.output)
        of_prompt = self._admission.prompt_logprobs(job) if sequence.scores_prompt else None
        self._counters.generated_tokens += len(tokens)
        usage = None if reason is None else self._finish(group, job)
        return Delta(sequence.request_id, tokens, text, reason, usage, None, logprobs, sequence.choice, of_prompt)

    def _finish(self, group: SequenceGroup, job: Job) -> Usage | None:
        """Ends a choice. Returns the request's usage if it was the last choice, else None."""
        ended = len(group.live) == 1
        self._leave(group, job.sequence, finished=ended)
        if not ended:
            return None
        self._forget(job.sequence.request_id)
        self._counters.finished += 1
        return group.usage

    def _break(self, request_id: str) -> Usage:
        """Ends a request with all its choices, before its answer is complete. Returns its usage.

        Sampled tokens not yet sent are not counted. If no token was sent, only the prompt tokens already prefilled
        count, also those of a sequence that has lost its blocks since: what was not computed costs nothing, also where
        the service is at fault."""
        group = self._groups[request_id]
        self._forget(request_id)
        for job in list(group.live.values()):
            if group.search is not None:
                self._drop(group, job)
                continue
            del job.sequence.tokens[job.sent :]  # tokens that were in no delta are not counted
            self._leave(group, job.sequence, finished=False)
        if group.search is not None:
            self._recorder.ended(group.first.sequence, 0, finished=False)
        self._recorder.broken(group.first.sequence, self._clock())
        usage = group.usage
        if usage.completion_tokens:
            return usage
        prompt = group.first.sequence.prompt_computed
        return Usage(prompt, 0, min(prompt, usage.cached_tokens))

    def _forget(self, request_id: str) -> None:
        """Removes a request from those in progress."""
        del self._groups[request_id]
        self._searches.pop(request_id, None)

    def _leave(self, group: SequenceGroup, sequence: Sequence, finished: bool) -> None:
        """Ends a sequence, and frees its blocks unless the scheduler has removed it already."""
        group.leave(sequence.choice)
        if sequence.status is not Status.ENDED:
            self.scheduler.remove(sequence)
        self._recorder.ended(sequence, sequence.generated, finished)
