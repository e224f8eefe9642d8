"""``principal_in``: verifies a JSON Web Token (RFC 7519) and returns its principal. Pure.

The checks are those of RFC 8725. Only the configured, asymmetric algorithms are accepted. The key is found by its id
among the issuer's published keys, never by a path or an address in the token. Issuer, audience, expiry and not-before
are checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from pydantic import TypeAdapter, ValidationError

from router.access.config_api_keys import unknown_key
from router.access.principal_cache import Verified
from router.access.stored_key import principal_of
from router.config.access import JwtConfig
from router.config.keys import KeyRights, Role
from router.config.settings import Name
from router.errors import AuthenticationError

MAX_TOKEN_CHARS = 16_384
MAX_USER_CHARS = 128
MAX_KEYS = 128  # in a key set
DIGEST_CHARS = 32
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)  # "eyJ" begins the JSON of a header
RIGHTS = ("tiers", "models", "tools", "endpoints", "spill")

_NAME = TypeAdapter(Name)


class UnknownSigningKeyError(AuthenticationError):
    """The token names a key that the issuer had not published when its key set was read last."""


def looks_like_token(text: str) -> bool:
    """Returns whether ``text`` has the form of a JWT. Neither its parts nor its signature are checked."""
    return len(text) <= MAX_TOKEN_CHARS and TOKEN.fullmatch(text) is not None


def key_set_of(document: object) -> KeySet:
    """Returns the public keys in a JWKS (RFC 7517, section 5). Symmetric keys, those for encryption and malformed ones
    are left out: a mistake in one key must not lock out the owners of the others.

    Raises ValueError if no usable key is left, if there are more than MAX_KEYS, or if ``document`` is no JWKS.
    """
    rows = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(rows, list) or len(rows) > MAX_KEYS:
        raise ValueError(f"a JWKS is an object with a list of at most {MAX_KEYS} keys")
    found = [key for row in rows if (key := _signing_key(row)) is not None]
    if not found:
        raise ValueError("the JWKS has no usable key")
    return KeySet(found)


def _signing_key(row: object) -> Key | None:
    """Returns the public key in a member of a JWKS; None for one that is malformed, symmetric or not for signatures."""
    if not isinstance(row, dict) or row.get("kty") not in ("RSA", "EC", "OKP") or row.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key(row)
        key.ensure_kid()
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    assert isinstance(key, RSAKey | ECKey | OKPKey)
    return key


def principal_in(token: str, keys: KeySet, config: JwtConfig, now: float) -> Verified:
    """Verifies ``token`` with the issuer's ``keys`` and returns its principal and expiry. ``now`` is the present time
    in seconds since the epoch.

    Raises AuthenticationError, without a reason that helps an attacker, for a token that is not valid. It is an
    UnknownSigningKeyError if none of ``keys`` has the id that the token names.
    """
    signatures = JWSRegistry(algorithms=list(config.algorithms), strict_check_header=False)
    try:
        decoded = jwt.decode(token, keys, registry=signatures)
        registry = jwt.JWTClaimsRegistry(
            now=int(now),
            leeway=config.leeway_s,
            iss={"essential": True, "value": config.issuer},
            aud={"essential": True, "value": config.audience},
            exp={"essential": True},
        )
        registry.validate(decoded.claims)
        return _verified(decoded.claims, token, config, now)
    except InvalidKeyIdError:
        raise UnknownSigningKeyError(unknown_key().message, unknown_key().code) from None
    except (JoseError, ValidationError, ValueError, TypeError):
        raise unknown_key() from None


def _verified(claims: Mapping[str, Any], token: str, config: JwtConfig, now: float) -> Verified:
    """Returns the principal that the ``claims`` of ``token`` describe. Raises ValueError, or ValidationError, for a
    wrong claim."""
    role = Role(claims.get(config.role_claim, Role.USER))
    if role is Role.ADMIN and not config.admins:
        raise ValueError("the role admin is not accepted from tokens")
    allowed = claims.get(config.rights_claim, {})
    if not isinstance(allowed, Mapping) or allowed.keys() - set(RIGHTS):
        # A right that is not known here would otherwise be one that is not enforced.
        raise ValueError(f"{config.rights_claim} is an object of {', '.join(RIGHTS)}")
    rights = KeyRights.model_validate(
        {"role": role, "feature": claims.get(config.feature_claim), **{name: allowed.get(name) for name in RIGHTS}}
    )
    tenant = _NAME.validate_python(claims.get(config.tenant_claim))
    team = claims.get(config.team_claim)
    user = claims.get("sub", "")
    if not isinstance(user, str):
        raise TypeError("sub is a string")
    name = "" if team is None else _NAME.validate_python(team)
    principal = principal_of(rights, tenant, name, _key_id(user, token))
    principal = replace(principal, user=user[:MAX_USER_CHARS], narrows_spill=True)
    return Verified(principal, now, float(claims["exp"]) + config.leeway_s)


def _key_id(subject: str, token: str) -> str:
    """Returns the key id of the owner of ``token``, to which streams and idempotency keys belong. Subjects that begin
    alike stay apart, and a token without a subject is known by itself. Raises ValueError for a subject that is no valid
    Unicode."""
    identity = (subject or token).encode()
    if 0 < len(subject) <= MAX_USER_CHARS:
        return f"jwt:{subject}"
    digest = hashlib.sha256(identity).hexdigest()[:DIGEST_CHARS]
    return f"jwt:{subject[: MAX_USER_CHARS - DIGEST_CHARS]}~{digest}"
