"""OpenAI's headers ``x-ratelimit-*``, and Manta's warning of a limit that is nearly used up."""

from __future__ import annotations

from collections.abc import Sequence

from router.ports.limit_store import LimitDecision, LimitName, LimitUse

REQUESTS = (LimitName.REQUESTS_PER_MINUTE,)
TOKENS = (LimitName.TOKENS_PER_MINUTE, LimitName.TOKENS_PER_DAY)


def rate_limit_headers(decision: LimitDecision, warn_at: float) -> list[tuple[bytes, bytes]]:
    """Returns the headers for the state of a request's limits.

    Of the limits of key and tenant, the one with the least left is shown. Of the token limits, that per minute is
    shown, if there is one. ``x-manta-limit-warning`` names each limit that is used by the share ``warn_at``, 0 to 1, or
    more.
    """
    headers: list[tuple[bytes, bytes]] = []
    for unit, names in (("requests", REQUESTS), ("tokens", TOKENS)):
        if (use := _scarcest(decision.uses, names)) is not None:
            headers += [
                (f"x-ratelimit-limit-{unit}".encode(), str(use.limit).encode()),
                (f"x-ratelimit-remaining-{unit}".encode(), str(use.remaining).encode()),
                (f"x-ratelimit-reset-{unit}".encode(), go_duration(use.reset_ms).encode()),
            ]
    if near := decision.near(warn_at):
        parts = (f"{use.name} of {use.owner} {100 * use.used // use.limit}%" for use in near)
        headers.append((b"x-manta-limit-warning", ", ".join(parts).encode()))
    return headers


def go_duration(ms: int) -> str:
    """Returns milliseconds as Go writes durations, and OpenAI these headers: ``0s``, ``20ms``, ``1.5s``, ``6m0s``."""
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest_ms / 1000:g}s"
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


def _scarcest(uses: Sequence[LimitUse], names: Sequence[LimitName]) -> LimitUse | None:
    """Returns the use with the least left, of the first of ``names`` that has a limit."""
    for name in names:
        if found := [use for use in uses if use.name is name]:
            return min(found, key=lambda use: use.remaining)
    return None
