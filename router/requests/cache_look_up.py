"""``CacheLookUp``: asks the answer cache for the answer to a request."""

from __future__ import annotations

from collections.abc import Mapping

from router.cache.answer_cache import AnswerCache
from router.cache.cache_control import controlled
from router.cache.cache_key import CacheScope
from router.cache.found_answer import CacheStatus, Found
from router.ledger.ledger import Account
from router.trace_attributes import note_look_up


class CacheLookUp:
    """Looks up the requests of one router. ``cache`` None: there is no answer cache. ``weights`` has the version of the
    weights of each tier."""

    def __init__(self, cache: AnswerCache | None, weights: Mapping[str, str]) -> None:
        self._cache = cache
        self._weights = weights

    def concerns(self, account: Account) -> bool:
        """Returns whether the answer may come from the cache or be stored there, before the guard has inspected the
        request."""
        if self._cache is None:
            return False
        controls = controlled(account.request.cache, account.call.cache_control)
        return self._cache.concerns(account.principal.tenant, account.request, controls)

    async def find(self, account: Account) -> Found:
        """Returns what the answer cache has for the request. May wait for an identical one that is under way."""
        request, ruling, principal = account.request, account.ruling, account.principal
        if self._cache is None or _refused(account):
            return Found(None, CacheStatus.BYPASS, "off" if self._cache is None else "refused")
        policy, checks = ("", "") if ruling is None else (ruling.policy, " ".join(ruling.checks))
        weights = self._weights.get(account.tier, "")
        scope = CacheScope(principal.tenant, account.tier, account.model, policy, principal.role.value, weights, checks)
        controls = controlled(request.cache, account.call.cache_control)
        found = await self._cache.find(scope, request, controls, ruling)
        note_look_up(account.call.trace, found)
        account.cache = found.status.value
        if found.hit is not None and self._cache.billed:
            account.meter.attempt(0).report(found.hit.stored.usage)
            account.meter.reasoning_tokens = found.hit.stored.reasoning_tokens
        return found


def needs_engine(account: Account, found: Found) -> bool:
    """Returns whether the answer has to be generated."""
    return found.hit is None and not _refused(account)


def _refused(account: Account) -> bool:
    return account.ruling is not None and account.ruling.refused
