"""``CacheMetrics``: the port to counters of the answer cache, for Prometheus."""

from __future__ import annotations

from typing import Protocol


class CacheMetrics(Protocol):
    """The counters of one router's answer cache. Each ``reason`` is one of a fixed set of phrases, so that it can be a
    label."""

    def asked(self, tenant: str, status: str, reason: str) -> None:
        """Counts a look-up by its ``status`` and ``reason``, which are as in the header x-manta-cache, without
        numbers."""
        ...

    def stored(self, tenant: str) -> None:
        """Counts an answer that was stored."""
        ...

    def unstored(self, tenant: str, reason: str) -> None:
        """Counts an answer that was not stored because of ``reason``, although the request did not bypass the cache."""
        ...

    def poisoned(self) -> None:
        """Counts an entry that could not be read, and was deleted."""
        ...

    def judged(self, tenant: str, judge: str, *, wrong: bool) -> None:
        """Counts a hit or a near miss whose answer was found right or ``wrong``. ``judge`` is the value of a
        ``HitJudge``."""
        ...


class NoCacheMetrics:
    """Counts nothing. Implements ``CacheMetrics``."""

    def asked(self, tenant: str, status: str, reason: str) -> None:
        pass

    def stored(self, tenant: str) -> None:
        pass

    def unstored(self, tenant: str, reason: str) -> None:
        pass

    def poisoned(self) -> None:
        pass

    def judged(self, tenant: str, judge: str, *, wrong: bool) -> None:
        pass
