"""``FailingEngine``: the real engine, in which the requests of one tenant fail in the middle of their answer."""

from __future__ import annotations

from typing import Self

from engine.admission import Job
from engine.api import GenerationRequest
from engine.decode.output import Output
from engine.engine import Engine
from load_tests.access.engines import FAILING, FAILS_AT


class BrokenDetokenizer:
    """Makes no text, and fails at token number FAILS_AT."""

    added = b""

    def __init__(self) -> None:
        self._tokens = 0

    def push(self, token: int) -> str:
        self._tokens += 1
        if self._tokens == FAILS_AT:
            raise ValueError("this request was made to fail")
        return ""

    def flush(self) -> str:
        return ""

    def copy(self) -> Self:
        return self


class FailingEngine(Engine):
    """Requests of the tenant FAILING get a BrokenDetokenizer."""

    def prepare(self, request: GenerationRequest) -> Job:
        job = super().prepare(request)
        if request.tenant != FAILING:
            return job
        return Job(job.sequence, Output(request.sampling, frozenset(), BrokenDetokenizer()))
