"""``MemoryIdempotencyStore``: idempotency keys in the memory of one process, without Redis and for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.expiry_timer import ExpiryTimer
from router.ports.clock import Clock
from router.ports.idempotency_store import KeyClaim, KeyState, KeyTerms
from router.ports.state_store import StateUnavailableError


@dataclass(slots=True)
class _Key:
    """A key. ``answer`` None: there is none yet. ``bytes``: its length. ``due_ms``: when the key is forgotten."""

    request: str
    owner: str
    account: str
    lease_ends_ms: int
    due_ms: int = 0
    answer: str | None = None
    bytes: int = 0


@dataclass(slots=True)
class _Tenant:
    """The keys of a tenant in the order of their last change, which is that of their due times, since all are kept for
    the same window. So no call looks at all of them."""

    keys: dict[str, _Key] = field(default_factory=dict)
    bytes: int = 0

    def expire(self, now: int) -> None:
        while self.keys and next(iter(self.keys.values())).due_ms <= now:
            self.forget(next(iter(self.keys)))

    def keep(self, name: str, key: _Key, terms: KeyTerms, now: int) -> None:
        """Keeps ``key`` for the window, and forgets those whose time ends first until the bounds hold."""
        if name in self.keys:
            self.forget(name)
        key.due_ms = now + terms.window_ms
        self.keys[name] = key
        self.bytes += key.bytes
        while self.keys and (len(self.keys) > terms.max_keys or self.bytes > terms.max_bytes):
            self.forget(next(iter(self.keys)))

    def forget(self, name: str) -> None:
        self.bytes -= self.keys.pop(name).bytes


class MemoryIdempotencyStore:
    """Implements ``IdempotencyStore``. Methods do not wait, so each is atomic among the tasks of one event loop. A
    timer deletes the answers of a tenant that makes no more calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._closed = False
        self._timer = ExpiryTimer(self._expire)

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        self._timer.cancel()

    async def claim(self, tenant: str, key: str, request: str, owner: str, account: str, terms: KeyTerms) -> KeyClaim:
        kept, now = self._tenant(tenant), self._now_ms()
        found = kept.keys.get(key)
        if found is not None and found.request != request:
            return KeyClaim(KeyState.DIFFERENT)
        if found is not None and found.answer is not None:
            return KeyClaim(KeyState.ANSWERED, found.answer)
        if found is not None and now < found.lease_ends_ms:
            return KeyClaim(KeyState.RUNNING)
        account = account if found is None else found.account
        kept.keep(key, _Key(request, owner, account, now + terms.lease_ms), terms, now)
        return KeyClaim(KeyState.CLAIMED, account)

    async def renew(self, tenant: str, key: str, owner: str, terms: KeyTerms) -> bool:
        kept, now = self._tenant(tenant), self._now_ms()
        held = _held(kept, key, owner)
        if held is None:
            return False
        held.lease_ends_ms = now + terms.lease_ms
        kept.keep(key, held, terms, now)
        return True

    async def answer(self, tenant: str, key: str, owner: str, answer: str, terms: KeyTerms) -> bool:
        kept = self._tenant(tenant)
        held = _held(kept, key, owner)
        if held is None:
            return False
        kept.forget(key)  # with the bytes that it had
        held.answer, held.bytes = answer, len(answer.encode())
        kept.keep(key, held, terms, self._now_ms())
        return True

    async def release(self, tenant: str, key: str, owner: str) -> None:
        kept = self._tenant(tenant)
        if _held(kept, key, owner) is not None:
            kept.forget(key)

    def _tenant(self, tenant: str) -> _Tenant:
        """Returns the keys of a tenant that are not forgotten yet. Raises StateUnavailableError."""
        if self._closed:
            raise StateUnavailableError("the store is closed", sent=False)
        kept = self._tenants.setdefault(tenant, _Tenant())
        kept.expire(self._now_ms())
        self._timer.arm()
        return kept

    def _expire(self) -> bool:
        """Forgets the keys of all tenants whose time is over, and tenants without keys. Returns whether some are
        left."""
        for name, kept in list(self._tenants.items()):
            kept.expire(self._now_ms())
            if not kept.keys:
                del self._tenants[name]
        return bool(self._tenants)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _held(kept: _Tenant, key: str, owner: str) -> _Key | None:
    found = kept.keys.get(key)
    return None if found is None or found.owner != owner or found.answer is not None else found
