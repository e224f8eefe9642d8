"""The value of the response header ``x-manta-safety``. Pure."""

from __future__ import annotations

from safety.api import Ruling, Verdict

MAX_REASONS = 4
SECRET_VERSIONS = frozenset({"phrases"})
"""The checks whose version is a digest of the tenant's own list. With it, a client could try out guesses of the list
without sending them. The audit log has it."""


def safety_header(decision: str, ruling: Ruling | None) -> str:
    """Returns ``decision``, and, if turns of the conversation were left out, how many and why: at most MAX_REASONS of
    ``check@version:category``. An example is ``redacted; dropped_turns=1; why=classifier@4:violence``. It quotes no
    text. Checks of SECRET_VERSIONS are named without their version. ``ruling`` None: the request was not inspected.

    ``blocked`` stands alone: of an answer that was halted, the reasons would read as those of the halt."""
    if ruling is None or decision == "blocked" or not ruling.dropped_turns:
        return decision
    reasons = dict.fromkeys(_reason(each) for each in ruling.verdicts if ruling.drops_turn(each))
    return f"{decision}; dropped_turns={len(ruling.dropped_turns)}; why={', '.join(list(reasons)[:MAX_REASONS])}"


def _reason(verdict: Verdict) -> str:
    version = "" if verdict.check in SECRET_VERSIONS else f"@{verdict.version}"
    return f"{verdict.check}{version}:{verdict.category}"
