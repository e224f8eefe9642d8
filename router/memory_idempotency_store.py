"""``MemoryIdempotencyStore``: idempotency keys in the memory of one process, without Redis and for tests."""

from __future__ import annotations

from dataclasses import dataclass

from router.ports.clock import Clock
from router.ports.idempotency_store import KeyClaim, KeyState, KeyTerms
from router.ports.state_store import StateUnavailableError


@dataclass(slots=True)
class _Key:
    """A key. ``answer`` None: there is none yet. ``due_ms``: when the key is forgotten."""

    request: str
    owner: str
    account: str
    lease_ends_ms: int
    due_ms: int
    answer: str | None = None

    @property
    def bytes(self) -> int:
        return len((self.answer or "").encode())


class MemoryIdempotencyStore:
    """Implements ``IdempotencyStore``. Methods do not wait, so each is atomic among the tasks of one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tenants: dict[str, dict[str, _Key]] = {}
        self._closed = False

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    async def claim(self, tenant: str, key: str, request: str, owner: str, account: str, terms: KeyTerms) -> KeyClaim:
        keys, now = self._keys(tenant), self._now_ms()
        found = keys.get(key)
        if found is not None and found.request != request:
            return KeyClaim(KeyState.DIFFERENT)
        if found is not None and found.answer is not None:
            return KeyClaim(KeyState.ANSWERED, found.answer)
        if found is not None and now < found.lease_ends_ms:
            return KeyClaim(KeyState.RUNNING)
        account = account if found is None else found.account
        keys[key] = _Key(request, owner, account, now + terms.lease_ms, now + terms.window_ms)
        _make_room(keys, terms)
        return KeyClaim(KeyState.CLAIMED, account)

    async def renew(self, tenant: str, key: str, owner: str, terms: KeyTerms) -> bool:
        held, now = self._held(tenant, key, owner), self._now_ms()
        if held is None:
            return False
        held.lease_ends_ms, held.due_ms = now + terms.lease_ms, now + terms.window_ms
        return True

    async def answer(self, tenant: str, key: str, owner: str, answer: str, terms: KeyTerms) -> bool:
        held = self._held(tenant, key, owner)
        if held is None:
            return False
        held.answer, held.due_ms = answer, self._now_ms() + terms.window_ms
        _make_room(self._keys(tenant), terms)
        return True

    async def release(self, tenant: str, key: str, owner: str) -> None:
        if self._held(tenant, key, owner) is not None:
            del self._keys(tenant)[key]

    def _held(self, tenant: str, key: str, owner: str) -> _Key | None:
        found = self._keys(tenant).get(key)
        return None if found is None or found.owner != owner or found.answer is not None else found

    def _keys(self, tenant: str) -> dict[str, _Key]:
        """Returns the keys of a tenant that are not forgotten yet. Raises StateUnavailableError."""
        if self._closed:
            raise StateUnavailableError("the store is closed", sent=False)
        now, keys = self._now_ms(), self._tenants.setdefault(tenant, {})
        for key in [key for key, each in keys.items() if each.due_ms <= now]:
            del keys[key]
        return keys

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _make_room(keys: dict[str, _Key], terms: KeyTerms) -> None:
    total = sum(each.bytes for each in keys.values())
    for key in sorted(keys, key=lambda each: keys[each].due_ms):
        if len(keys) <= terms.max_keys and total <= terms.max_bytes:
            return
        total -= keys.pop(key).bytes
