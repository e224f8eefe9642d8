"""The two loops. Closed: each stream asks again once it is answered. Open: requests come when they come."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

from load_tests.generator.answer import Answer, Expectation, Problem, check
from load_tests.generator.arrivals import poisson
from load_tests.generator.client import Client
from load_tests.generator.options import LoadOptions
from load_tests.generator.target import chat_body

OnAnswer = Callable[[Answer], None]


class Load:
    """Requests of one run. Every answer is checked as it comes and handed to ``on_answer`` at once.

    With ``references``, one text per prompt, an answer must have exactly that text.
    """

    def __init__(
        self, options: LoadOptions, client: Client, on_answer: OnAnswer, references: tuple[str, ...] | None = None
    ) -> None:
        self._options = options
        self._client = client
        self._on_answer = on_answer
        self._expectation = Expectation(options.max_tokens, options.ignore_eos, references)
        self._requests = [options.target.request(_body(options, prompt)) for prompt in options.prompts]

    async def alone(self) -> tuple[str, ...] | None:
        """Asks each prompt with nothing else under way; the texts are references for another Load.

        None if an answer had a problem: then there is nothing to compare with.
        """
        texts = []
        for prompt in range(len(self._requests)):
            answer = await self._ask(prompt)
            if answer.problem is not None:
                return None
            texts.append(answer.text)
        return tuple(texts)

    async def run(self) -> float:
        """Runs the loop to its end; returns the seconds until the last answer."""
        started = self._client.now()
        if self._options.rate is None:
            await self._closed_loop(started + self._options.duration)
        else:
            await self._open_loop(self._options.rate)
        return self._client.now() - started

    async def _closed_loop(self, end: float) -> None:
        limit = self._options.requests
        numbers = itertools.count() if limit is None else iter(range(limit))

        async def stream() -> None:
            for number in numbers:  # shared: each number is asked once
                if self._client.now() >= end:
                    return
                await self._ask(number % len(self._requests))

        async with asyncio.TaskGroup() as group:
            for _ in range(self._options.concurrency):
                group.create_task(stream())

    async def _open_loop(self, rate: float) -> None:
        in_flight: set[asyncio.Task[Answer]] = set()
        async with asyncio.TaskGroup() as group:
            async for number in self._arrivals(rate):
                prompt = number % len(self._requests)
                if len(in_flight) >= self._options.max_in_flight:
                    answer = Answer(prompt, self._client.now(), self._client.now())
                    answer.fail(Problem.NOT_SENT, f"{len(in_flight)} requests are in flight")
                    self._on_answer(answer)
                    continue
                task = group.create_task(self._ask(prompt))
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)

    async def _arrivals(self, rate: float) -> AsyncIterator[int]:
        started = self._client.now()
        times = poisson(rate, self._options.duration, self._options.seed)
        for number, arrival in enumerate(itertools.islice(times, self._options.requests)):
            # A loop that is late sends at once and catches up: the arrivals are the load's, not the sleep's.
            if (wait := started + arrival - self._client.now()) > 0:
                await asyncio.sleep(wait)
            yield number

    async def _ask(self, prompt: int) -> Answer:
        answer = await self._client.ask(prompt, self._requests[prompt])
        check(answer, self._expectation)
        self._on_answer(answer)
        return answer


def _body(options: LoadOptions, prompt: str) -> dict[str, object]:
    return chat_body(
        prompt,
        model=options.model,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        stream=options.stream,
        ignore_eos=options.ignore_eos,
    )
