"""The JSON documents of ``/admin/v1/keys``: the bodies of requests, and the form in which a key is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from router.access.key_format import ApiKey
from router.access.stored_key import KeyOwner, StoredKey
from router.config.limits import LimitsConfig
from router.config.tenants import Spill
from router.errors import InvalidRequestError
from router.ports.limit_store import MONEY_UNITS, LimitName, LimitUse

MAX_GRACE_S = 30 * 86_400.0

Document = TypeVar("Document", bound=BaseModel)


class NewKey(KeyOwner):
    """The body of ``POST /admin/v1/keys``. ``expires_at`` is in seconds since the epoch; ``expires_in_s`` counts from
    now."""

    expires_at: float | None = Field(None, gt=0, lt=1e11)
    expires_in_s: float | None = Field(None, gt=0, lt=1e10)

    def expiry(self, now: float) -> float | None:
        """Returns when the key expires, in seconds since the epoch; None: never. If both fields are set, the earlier
        time is returned."""
        ends = [self.expires_at, None if self.expires_in_s is None else now + self.expires_in_s]
        return min((end for end in ends if end is not None), default=None)


class Rotation(BaseModel):
    """The body of ``POST /admin/v1/keys/{id}/rotate``, which may be empty. ``grace_s``: seconds for which the former
    key still works."""

    model_config = ConfigDict(extra="forbid")

    grace_s: float = Field(0.0, ge=0, le=MAX_GRACE_S)


class KeyChange(BaseModel):
    """The body of ``PATCH /admin/v1/keys/{id}``: what is to be another of a key's settings. A member that is left out
    stays as it is; ``spill`` null takes the key's own setting away."""

    model_config = ConfigDict(extra="forbid")

    limits: LimitsConfig = LimitsConfig()
    spill: Spill | None = None

    @model_validator(mode="after")
    def _check_change(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change: limits or spill")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The new values, by the names of the settings."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def parse_document(kind: type[Document], body: bytes) -> Document:
    """Parses ``body``, which is JSON, as the class ``kind`` and returns the instance. An empty body counts as ``{}``.

    Raises InvalidRequestError that names the wrong field. It does not quote the value, which may be a secret.
    """
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))[:128].encode("ascii", "backslashreplace").decode()
        message = f"{field}: {first['msg']}." if field else f"The body is not valid: {first['msg']}."
        raise InvalidRequestError(message, "invalid_value", field or None) from None


def check_tiers(new: NewKey, tiers: Sequence[str]) -> None:
    """Raises InvalidRequestError if ``new`` names a tier that is not one of ``tiers``."""
    for name in new.tiers or ():
        if name not in tiers:
            shown = name.encode("ascii", "backslashreplace").decode()[:64]
            message = f"tiers: There is no tier '{shown}'. Available: {', '.join(tiers)}."
            raise InvalidRequestError(message, "invalid_value", "tiers")


def limit_document(use: LimitUse) -> dict[str, Any]:
    """Returns the use of one limit as a JSON object. Money is in the currency of the prices."""
    unit = MONEY_UNITS if use.name is LimitName.MONEY_PER_MONTH else 1
    amounts = {"value": use.limit, "used": use.used, "remaining": use.remaining}
    shown = {name: amount if unit == 1 else amount / unit for name, amount in amounts.items()}
    return {"object": "limit", "scope": use.owner, "limit": use.name.value, **shown, "reset_s": use.reset_ms / 1000}


def key_document(stored: StoredKey, now: float, key: ApiKey | None = None) -> dict[str, Any]:
    """Returns an API key as a JSON object. ``now`` is the present time, in seconds since the epoch. ``key`` is the key
    in plain text, which is given and shown only when it was just created or rotated. Hashes are never shown."""
    shown: Mapping[str, Any] = stored.model_dump(
        mode="json", include={*KeyOwner.model_fields, "created_at", "expires_at", "revoked_at", "rotated_at"}
    )
    limits = {name: value for name, value in shown["limits"].items() if value is not None}
    document = {"id": stored.id, "object": "key", **shown, "limits": limits}
    document |= {"prefix": stored.prefix, "active": stored.active(now)}
    return document if key is None else {**document, "key": key.text}
