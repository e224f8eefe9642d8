"""``cut_streams``: after how many events each client loses its connection. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from load_tests.chaos.mix import Request
from load_tests.chaos.transcript import Transcript
from load_tests.resume.client import CutStream

LATEST = 0.9
"""The latest cut, as a share of an answer's events. Later, a stream may end first, in fewer events."""


def cut_streams(requests: Sequence[Request], expected: Sequence[Transcript], chance: random.Random) -> list[CutStream]:
    """Returns a stream for each request, cut after a random share of the events that it had undisturbed."""
    return [
        CutStream(request, int(chance.uniform(0.0, LATEST) * len(each.times)))
        for request, each in zip(requests, expected, strict=True)
    ]
