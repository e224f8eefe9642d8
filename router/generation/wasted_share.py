"""``WastedShares``: how much of what is computed ahead of the checks is thrown away, by API key. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

WEIGHT = 1 / 8
"""Of the tokens of all requests so far, this part is forgotten with each new one."""
MAX_SHARE = 0.45
MAX_KEYS = 10_000  # the one that was seen longest ago makes room


@dataclass(slots=True)
class _Tokens:
    """Prompt tokens of the recent requests of one key."""

    wasted: float = 0.0
    all: float = 0.0


class WastedShares:
    """The share of the recent prompt tokens of each API key whose requests were refused, changed, late or left.

    Work ahead of the checks is free of charge if it is thrown away. The share is one of tokens, so that many short
    requests which pass do not make up for long ones which do not.
    """

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[str, str], _Tokens] = OrderedDict()

    def pays(self, key: tuple[str, str]) -> bool:
        """Returns whether work ahead of the checks pays for the next request of ``key``: a tenant and its key's id."""
        found = self._tokens.get(key)
        return found is None or found.wasted < MAX_SHARE * found.all

    def observe(self, key: tuple[str, str], tokens: int, *, wasted: bool) -> None:
        """Counts a request of ``key`` with ``tokens`` prompt tokens whose checks have ended, whether or not there was
        work ahead of them."""
        found = self._tokens.setdefault(key, _Tokens())
        found.wasted += tokens * wasted - WEIGHT * found.wasted
        found.all += tokens - WEIGHT * found.all
        self._tokens.move_to_end(key)
        if len(self._tokens) > MAX_KEYS:
            self._tokens.popitem(last=False)
