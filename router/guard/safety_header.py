"""The value of the response header ``x-manta-safety``. Pure."""

from __future__ import annotations

from safety.api import Ruling, Verdict

MAX_REASONS = 4


def safety_header(decision: str, ruling: Ruling | None) -> str:
    """Returns ``decision``, and, if turns of the conversation were left out, how many and why: at most MAX_REASONS of
    ``check@version:category``. An example is ``redacted; dropped_turns=1; why=classifier@4:violence``. It quotes no
    text. ``ruling`` None: the request was not inspected."""
    if ruling is None or ruling.refused or not ruling.dropped_turns:
        return decision
    reasons = dict.fromkeys(_reason(each) for each in ruling.verdicts if ruling.drops_turn(each))
    return f"{decision}; dropped_turns={len(ruling.dropped_turns)}; why={', '.join(list(reasons)[:MAX_REASONS])}"


def _reason(verdict: Verdict) -> str:
    return f"{verdict.check}@{verdict.version}:{verdict.category}"
