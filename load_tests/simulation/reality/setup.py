"""``Setup``: the engine, the load and the bounds of a comparison. It is apart from the engines, which import Ray and
torch."""

from __future__ import annotations

from dataclasses import dataclass

from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.reality.local_profile import LOCAL
from load_tests.simulation.slo import Slo

IN_TIME = Slo(ttft_s=1.0, itl_s=0.15, ttft_s_per_token=0.0)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run is made of. ``rate`` is in requests/s, lengths are in tokens. ``least`` and ``most`` bound the
    replicas. ``profile`` None: it is measured by lone requests before the load (``Probes``).
    ``template_tokens`` are those of a prompt beside its words."""

    engine: str
    rate: float
    profile: ReplicaProfile | None
    slo: Slo = IN_TIME
    least: int = 2
    most: int = 4
    max_prompt: int = 900
    max_output: int = 80
    template_tokens: int = 0


FAST_TEMPLATE = 19
"""Tokens of a conversation of one message beside its words, of the embedded model ``fast``, whose context is 1,024."""

SETUPS = {
    setup.engine: setup
    for setup in (
        Setup("stub", 9.0, LOCAL),
        Setup("stretched", 3.6, None, template_tokens=FAST_TEMPLATE),
        # As much as two cores answer well, of which the rest of the service needs one.
        Setup("embedded", 10.0, None, template_tokens=FAST_TEMPLATE),
    )
}
"""``stub`` takes the time of a profile. ``embedded`` is the real engine with the embedded model ``fast``, and
``stretched`` the same, whose forward passes take as long as those of a larger model, so that a few requests keep four
replicas busy on two cores."""
