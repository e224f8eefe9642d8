"""How keys and tokens of an issuer are checked."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from router.config.settings import Settings

JwtAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"]
"""The algorithms of JWTs that can be allowed. All are asymmetric, so that the published keys can only verify. ``none``
and HMAC (HS256 and the like) cannot be allowed: with HMAC, a public key would be enough to sign (RFC 8725, 2.1)."""


class JwtConfig(Settings):
    """Access by JSON Web Tokens (RFC 7519) of one issuer, beside API keys."""

    issuer: str = Field(min_length=1)
    """The value that the claim ``iss`` must have."""
    audience: str = Field(min_length=1)
    """The value that the claim ``aud`` must have or contain."""
    algorithms: tuple[JwtAlgorithm, ...] = Field(("RS256",), min_length=1)
    """The signature algorithms that are accepted."""
    jwks_file: str | None = Field(None, min_length=1)
    """The path of the issuer's key set (JWKS, RFC 7517). It is read again every ``refresh_s`` seconds."""
    jwks_url: str | None = Field(None, pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])")
    """The address of the issuer's key set, by HTTPS, or by HTTP on loopback. One of this and ``jwks_file`` is set."""
    refresh_s: float = Field(300.0, ge=1)
    """Seconds between two readings of the key set. Within them the issuer can add a key before it signs with it."""
    leeway_s: int = Field(30, ge=0, le=300)
    """Seconds that the clocks of the issuer and of the router may differ."""
    tenant_claim: str = Field("tenant", min_length=1)
    """The claim with the tenant, which a token must have."""
    team_claim: str = Field("team", min_length=1)
    """The claim with the team. A token without it has no team."""
    feature_claim: str = Field("feature", min_length=1)
    """The claim with the feature. A token without it may name a feature in the header x-manta-feature."""
    role_claim: str = Field("manta_role", min_length=1)
    """The claim with the role. A token without it has the role ``user``."""
    rights_claim: str = Field("manta_rights", min_length=1)
    """The claim with an object of ``tiers``, ``models``, ``tools`` and ``endpoints``, lists of what the token allows,
    and ``spill``, which narrows what the settings of the tenant allow, or ``router.admission.spill``. A token without
    it allows all."""
    admins: bool = False
    """Whether a token may have the role ``admin``. Off by default: the issuer's claims are then no way into /admin."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("one of jwks_file and jwks_url must be set")
        return self


class AccessConfig(Settings):
    """The settings for verifying and caching API keys and tokens."""

    jwt: JwtConfig | None = None
    """Access by JSON Web Tokens. None: by API keys alone."""
    cache_s: float = Field(5.0, gt=0, le=60)
    """Seconds for which a verified key is not looked up again. A revoked key may be accepted for as long."""
    cache_size: int = Field(10_000, ge=1)
    """The most verified keys and tokens that a router remembers. An entry has about 1 KB."""
    stale_s: float = Field(300.0, ge=0)
    """Seconds for which a verified key is accepted while the state store cannot be reached. 0: not at all, so that an
    outage of the store refuses every key that is not in this file."""
