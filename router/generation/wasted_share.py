"""``WastedShares``: how much of what is generated ahead of the checks is thrown away, by API key. Pure."""

from __future__ import annotations

from collections import OrderedDict

WEIGHT = 1 / 8
"""The weight of the last request in the share: five that are refused one after the other reach MAX_SHARE."""
MAX_SHARE = 0.45
MAX_KEYS = 10_000  # the one that was seen longest ago makes room


class WastedShares:
    """The recent share of requests that are refused, or changed, by their checks, for each API key.

    It is a mean of all requests whose weights fall exponentially. Work ahead of the checks is free of charge if it is
    thrown away, so a client that sends nothing but what is refused must not cause any.
    """

    def __init__(self) -> None:
        self._shares: OrderedDict[tuple[str, str], float] = OrderedDict()

    def pays(self, key: tuple[str, str]) -> bool:
        """Returns whether work ahead of the checks pays for the next request of ``key``: a tenant and its key's id."""
        return self._shares.get(key, 0.0) < MAX_SHARE

    def observe(self, key: tuple[str, str], wasted: bool) -> None:
        """Counts a request of ``key`` whose checks have ended, whether or not there was work ahead of them."""
        share = self._shares.get(key, 0.0)
        self._shares[key] = share + WEIGHT * (wasted - share)
        self._shares.move_to_end(key)
        if len(self._shares) > MAX_KEYS:
            self._shares.popitem(last=False)
