"""``ScalingApi``: the requests to ``/admin/v1/scaling``, independent of the transport.

::

    GET    /admin/v1/scaling              the last decision for each tier, with the reasons, and its pin
    PUT    /admin/v1/scaling/{tier}/pin   sets the number of its replicas for some time
    DELETE /admin/v1/scaling/{tier}/pin   lets its load decide again
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from router.admin.admin_section import AdminCall, RecordChange
from router.admin.key_schemas import parse_document
from router.errors import InvalidRequestError, NotFoundError
from router.ports.clock import Clock
from router.ports.tier_scaling import ReplicaBounds, ReplicaPin, TierScaling
from router.principal import Principal

SCALING = "/admin/v1/scaling"
PIN = re.compile(rf"{SCALING}/(?P<tier>[A-Za-z0-9][A-Za-z0-9._-]{{0,63}})/pin")
MAX_BODY_BYTES = 16 * 1024
MAX_PIN_S = 30 * 24 * 3600.0


class PinBody(BaseModel):
    """The body of ``PUT /admin/v1/scaling/{tier}/pin``. A pin always expires, so that none is forgotten."""

    model_config = ConfigDict(extra="forbid")

    replicas: int = Field(ge=0, le=10_000)
    expires_in_s: float = Field(gt=0, le=MAX_PIN_S)
    why: str = Field("", max_length=200)


class ScalingApi:
    """Answers requests of administrators about the number of replicas. ``scaling`` None: all numbers are fixed."""

    def __init__(self, scaling: TierScaling | None, clock: Clock, record_change: RecordChange) -> None:
        self._scaling = scaling
        self._clock = clock
        self._record_change = record_change

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        if path == SCALING:
            return ("GET",)
        return ("PUT", "DELETE") if PIN.fullmatch(path) else None

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any]:
        """Answers a request whose method and path are among ``methods``. Raises InvalidRequestError, NotFoundError and
        StateUnavailableError."""
        scaling, now = self._scaling, self._clock.now()
        if scaling is None:
            raise NotFoundError("The tiers of this service have fixed numbers of replicas.", "scaling_not_configured")
        if call.path == SCALING:
            pins = {pin.tier: pin for pin in await scaling.pins() if pin.expires_at > now}
            data = [{**each, "pin": _document(pins.get(str(each["tier"])))} for each in await scaling.decisions()]
            return {"object": "list", "data": data, "now": now}
        found = PIN.fullmatch(call.path)
        assert found is not None, "methods() knows the path"
        tier = found["tier"]
        if tier not in scaling.tiers:
            raise NotFoundError(f"No tier '{tier}' is scaled.", "tier_not_scaled", "tier")
        if call.method == "DELETE":
            deleted = await scaling.unpin(tier)
            self._record(principal, tier, "unpinned")
            return {"object": "pin", "tier": tier, "deleted": deleted}
        asked = parse_document(PinBody, await call.read(MAX_BODY_BYTES))
        pin = ReplicaPin(tier, asked.replicas, now + asked.expires_in_s, asked.why)
        _check(pin, scaling.tiers[tier])
        await scaling.pin(pin)
        self._record(principal, tier, f"pinned to {pin.replicas} for {asked.expires_in_s:g} s", pin.why)
        return {"object": "pin", "tier": tier, **(_document(pin) or {})}

    def _record(self, principal: Principal, tier: str, outcome: str, why: str = "") -> None:
        change = {"check": f"scaling:{tier}", "outcome": outcome, "reviewer": principal.key_id}
        self._record_change(principal.tenant, {**change, "why": why} if why else change)


def _check(pin: ReplicaPin, bounds: ReplicaBounds) -> None:
    """Raises InvalidRequestError for a number that the tier cannot have."""
    if not bounds.least <= pin.replicas <= bounds.most:
        message = f"The tier '{pin.tier}' has {bounds.least} to {bounds.most} replicas, so not {pin.replicas}."
        raise InvalidRequestError(message, "replicas")


def _document(pin: ReplicaPin | None) -> dict[str, Any] | None:
    return None if pin is None else {"replicas": pin.replicas, "expires_at": pin.expires_at, "why": pin.why}
