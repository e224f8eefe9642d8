"""``RouterConfig``: the settings of the router. Unknown keys are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.api import Priority

HASHED = "sha256:"
"""Marks an API key in the config that is given as its SHA-256 digest."""

MIN_TOP_P = 1e-9
"""What OpenAI's ``top_p: 0`` becomes, since the engine refuses 0. Both select the most probable token alone."""


MIN_MONEY = 1e-9
"""The smallest budget: one of the units in which money is counted (``ports.limit_store``). Less would be rounded to 0,
which is no limit that can be counted."""


MAX_CACHE_TTL_S = 90 * 86_400
"""Seconds. What is older than a quarter of a year is hardly an answer to be given again."""

MIN_SECRET_BYTES = 32
"""Of the secret from which keys are derived."""


class Settings(BaseModel):
    """The base of all settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Role(StrEnum):
    """The role of an API key."""

    ADMIN = "admin"  # everything, ``/admin/v1`` included
    USER = "user"  # inference, and the usage of its own tenant
    VIEWER = "viewer"  # the usage of its own tenant and the list of models, but no inference


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}$")]
"""The name of a tenant, team or feature: up to 64 characters that need no escaping in a header, a URL or a CSV file."""

Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(min_length=1, max_length=128)]


class LimitsConfig(Settings):
    """The limits on the usage of a key or a tenant. None: no limit."""

    requests_per_minute: int | None = Field(None, ge=1)
    """Requests in any minute."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Tokens in any minute, input and output together."""
    concurrent_requests: int | None = Field(None, ge=1)
    """Requests at the same time."""
    tokens_per_day: int | None = Field(None, ge=1)
    """Tokens of a day (UTC), input and output together."""
    money_per_month: float | None = Field(None, ge=MIN_MONEY, allow_inf_nan=False)
    """Money of a calendar month (UTC), in the currency of the prices."""


Spill = Literal["none", "up", "down", "any"]
"""Where a request may go that its tier would refuse: nowhere, to a stronger tier, to a weaker one, or to both, stronger
ones first."""


class TenantConfig(Settings):
    """The settings of a tenant."""

    limits: LimitsConfig = LimitsConfig()
    """How much all keys of the tenant may use together, whatever limits each key has."""
    spill: Spill | None = None
    """Where the tenant's requests may go that their tier would refuse. None: as ``router.admission`` says. A request
    may narrow it by its field ``spill``. Only tiers that its key may use count."""
    on_failure: Literal["error", "partial"] | None = None
    """What the tenant's requests get that do not say ``on_failure``. None: as ``router.failover`` says."""
    resume: bool = True
    """Whether streams of the tenant can be resumed, if its requests ask for it and ``router.resume`` allows it. Off: no
    text of its streams is kept."""


class LimitPolicy(Settings):
    """The settings by which the limits of keys and tenants are enforced."""

    when_unavailable: Literal["admit", "refuse"] = "admit"
    """What happens to a request with limits while the shared state does not answer: it is admitted, and counted when
    the state answers again, or refused with a 503. Refuse where a budget must never be exceeded."""
    warn_at: float = Field(0.8, gt=0, le=1)
    """The share of a limit from which on answers have the header x-manta-limit-warning."""
    lease_s: float = Field(15.0, ge=1, le=3600)
    """Seconds after which the reservations of a router that has died are returned. Living routers renew theirs."""
    usual_output_tokens: int = Field(256, ge=1)
    """Tokens that are reserved for an answer without ``max_tokens``, until the usual length of the tenant's answers is
    known."""


class KeyRights(Settings):
    """The rights of an API key: the tiers, models, tools and endpoints that it may use. A list that is None permits
    everything."""

    role: Role = Role.USER
    """What the key is for."""
    feature: Name | None = None
    """The feature, for accounting. None: requests may name one in the header x-manta-feature."""
    feature_header: bool | None = None
    """Whether requests may name their feature in the header x-manta-feature. None: if the key has no feature."""
    tiers: Names | None = None
    """The tiers that the key may use. ``auto`` chooses among them."""
    models: Names | None = None
    """The model names that the key may ask for: tiers, ``auto`` and aliases."""
    tools: Names | None = None
    """The functions that requests with the key may offer to the model."""
    endpoints: Names | None = None
    """The paths that the key may call, such as /v1/chat/completions. /v1/models is always allowed."""
    spill: Spill | None = None
    """Where requests with the key may go that their tier would refuse: as far as ``router.tenants.*.spill`` allows it,
    if that is set. None: as that says, or ``router.admission.spill``. Requests may narrow it (field ``spill``)."""
    limits: LimitsConfig = LimitsConfig()
    """How much the key may use."""


class KeyConfig(KeyRights):
    """An API key in the config, and its owner."""

    key: str = Field(min_length=1, repr=False)
    """The key itself, or ``sha256:`` and its hexadecimal digest, which may be put under version control."""
    tenant: Name
    """The tenant, which is billed and owns the data. Cached prefixes are never shared between tenants."""
    team: Name
    """The team within the tenant, for accounting."""

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        # A mistyped digest would otherwise be taken for a key in plain text, readable in the config.
        if key.startswith(HASHED) and not re.fullmatch(r"[0-9a-f]{64}", key.removeprefix(HASHED)):
            raise ValueError("sha256: must be followed by 64 lower-case hexadecimal digits")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError("a key must be made of printable ASCII without spaces: it travels in a header")
        return key


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


class AutoConfig(Settings):
    """The settings by which ``model: auto`` chooses a tier: by a forecast of each tier's quality, or by the prompt's
    complexity score."""

    forecast: str | None = Field(None, min_length=1)
    """Path of a forecaster's file, which ``python -m deployments.models.training.routing`` writes. None: the complexity
    score decides. The forecaster must be fitted to all configured tiers. A relative path starts at the working
    directory. The file is read once, in the process that builds the application."""
    tolerance: float = Field(0.05, ge=0, le=1)
    """With a forecaster: the cheapest tier is chosen whose forecast chance of a right answer is at most this much below
    the best tier's. 0 always chooses the best tier, 1 always the cheapest."""
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """Without a forecaster: the complexity score, 0 to 1, from which each tier is chosen. The weakest tier has no
    threshold. A tier without one is never chosen, unless a key may use no other. None: thresholds are spread evenly
    from 0.30 to 0.55."""


class ProfileConfig(Settings):
    """A sampling profile: sampling parameters for a use case. Parameters that a request sets itself override them."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=-1)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that the profile sets, by their names in SamplingParams. ``top_p: 0`` becomes MIN_TOP_P."""
        parameters: dict[str, float] = self.model_dump(exclude_none=True)
        if "top_p" in parameters:
            parameters["top_p"] = max(parameters["top_p"], MIN_TOP_P)
        return parameters


PROFILES = {
    "extraction": ProfileConfig(temperature=0.0, top_k=1, top_p=0.1),
    "factual": ProfileConfig(temperature=0.4, top_k=40, top_p=0.7),
    "creative": ProfileConfig(temperature=1.0, top_k=80, top_p=0.95),
    "experimental": ProfileConfig(temperature=1.5, top_k=200, top_p=0.98),
}


class PriceConfig(Settings):
    """The price of a tier per million tokens, in the currency of the prices."""

    input: float = Field(ge=0, allow_inf_nan=False)
    """Tokens of prompts."""
    cached_input: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Tokens of prompts that were in the prefix cache. None: as ``input``."""
    output: float = Field(ge=0, allow_inf_nan=False)
    """Tokens of answers, reasoning included."""

    @property
    def per_million(self) -> tuple[float, float, float]:
        """The prices of a million tokens of input, cached input and output, in the currency of the prices."""
        return self.input, self.input if self.cached_input is None else self.cached_input, self.output


class PricesConfig(Settings):
    """The price list."""

    version: str = Field("none", min_length=1, max_length=64)
    """The version of the list. Each ledger entry names it, so that a cost can be explained later."""
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    """The currency (ISO 4217) of all prices, costs and budgets."""
    tiers: dict[str, PriceConfig] = Field(default_factory=dict)
    """The price of each tier. If one has a price, all must: a tier that was forgotten would cost nothing. {}: tokens
    are counted, and cost nothing. The input of /v1/embeddings has the price of ``embeddings``."""


class ReviewConfig(Settings):
    """The settings of the review queue and of the audit log. The tenants' policies decide which texts go to review."""

    secret_file: Path | None = None
    """A file with at least 32 characters, such as a mounted secret, from which the keys of fingerprints and of stored
    texts are made; the same for all routers. None: a random one, which the shared state keeps beside the texts. With
    another secret, former exceptions match nothing and former texts cannot be read."""
    lease_s: float = Field(900.0, ge=1, le=86_400)
    """Seconds for which a reviewer holds an item. Then it goes back to the queue."""
    max_open: int = Field(10_000, ge=1, le=100_000)
    """The most open items of a tenant in the queue. Further texts are not queued, and their requests are refused."""
    kept_days: int = Field(90, ge=1, le=3650)
    """Days that an item is kept after its decision, for the next training."""
    audit_days: int = Field(90, ge=1, le=3650)
    """Days that the records of the audit log are kept. The heads of its chain are always kept."""

    def read_secret(self) -> bytes | None:
        """Returns the secret in ``secret_file``; None if that is not set.

        Raises ValueError, without the secret, for a file that cannot be read or is too short.
        """
        if self.secret_file is None:
            return None
        try:
            secret = self.secret_file.read_bytes().strip()
        except OSError as error:
            raise ValueError(f"router.review.secret_file: {self.secret_file}: {error.strerror}") from error
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"router.review.secret_file: {self.secret_file} has fewer than 32 characters")
        return secret


class EmbeddingsConfig(Settings):
    """The settings of /v1/embeddings."""

    aliases: tuple[Annotated[str, Field(pattern=r"^[!-~]{1,128}$")], ...] = Field((), max_length=128)
    """Further names of the model, for clients whose model name cannot be changed, such as text-embedding-3-small. Such
    a client gets vectors of this model, with its number of dimensions."""


OverflowPolicy = Literal["larger_tier", "retrieve", "compress", "trim"]
"""What can be done with a conversation that is too long. ``larger_tier``: another tier of the key takes it whole.
``retrieve``: the passages of older turns that fit the last one best stand in their place. ``compress``: older turns
lose the sentences that have least to do with the last one. ``trim``: the oldest turns are dropped whole."""


class OverflowConfig(Settings):
    """The policies for a conversation that does not fit a tier's context, or is longer than ``max_prompt_tokens``."""

    policies: tuple[OverflowPolicy, ...] = ()
    """What is tried, in this order, until the conversation fits. (): nothing; the request is refused."""
    max_prompt_tokens: int | None = Field(None, ge=16)
    """The most tokens of a conversation, even if the tier's context has room for more: long prompts cost more and are
    answered worse. None: as many as the context has."""
    answer_tokens: int = Field(256, ge=1)
    """Tokens that are left for the answer to a request without ``max_tokens``; a quarter of the context at most."""


class PromptsConfig(Settings):
    """The settings of stored prompts, and of conversations that are too long."""

    cache_s: float = Field(5.0, ge=0, le=3600)
    """Seconds after which a router reads again which version of a prompt is active."""
    overflow: OverflowConfig = OverflowConfig()
    """What happens to conversations that are too long."""
    tiers: dict[str, OverflowConfig] = Field(default_factory=dict)
    """The same for single tiers, instead of ``overflow``."""
    tenants: dict[str, OverflowConfig] = Field(default_factory=dict)
    """The same for single tenants. A tenant's setting comes before that of the tier."""

    def overflow_of(self, tenant: str, tier: str) -> OverflowConfig:
        """Returns the overflow settings that apply to a tenant's conversations on a tier."""
        return self.tenants.get(tenant) or self.tiers.get(tier) or self.overflow


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """The settings of the answer cache that apply to one tenant. The members are as in ``AnswerCacheConfig``."""

    enabled: bool
    semantic: bool
    sampled: bool
    ttl_s: float
    max_entries: int
    max_bytes: int


class TenantCacheConfig(Settings):
    """The answer cache of one tenant. A member that is None has the value of ``AnswerCacheConfig``."""

    enabled: bool | None = None
    semantic: bool | None = None
    sampled: bool | None = None
    ttl_s: float | None = Field(None, gt=0, le=MAX_CACHE_TTL_S)
    max_entries: int | None = Field(None, ge=1)
    max_bytes: int | None = Field(None, ge=1024)


class AnswerCacheConfig(Settings):
    """The answer cache: stores complete answers, and returns them to the same question, or to one of the same
    meaning."""

    enabled: bool = False
    """Whether answers are stored and given again."""
    semantic: bool = True
    """Whether an answer is also given to another question of the same meaning, where there is a semantic index."""
    sampled: bool = False
    """Whether answers are stored that were sampled at a temperature above 0 without a seed. Each request would get
    another one; with the cache, all get the first."""
    ttl_s: float = Field(86_400.0, gt=0, le=MAX_CACHE_TTL_S)
    """Seconds for which an answer is kept."""
    max_entries: int = Field(100_000, ge=1)
    """The most answers that a tenant has stored. The one that was used least recently makes room."""
    max_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    """The most bytes of a tenant's answers together, as they are stored."""
    max_entry_bytes: int = Field(256 * 1024, ge=1024)
    """The largest answer that is stored, in bytes. Larger ones are rare, and would evict many others."""
    billing: Literal["free", "full"] = "free"
    """What a hit costs: nothing, or what the generation of its answer has cost. Tokens are counted alike."""
    max_false_hit_rate: float = Field(0.01, gt=0, le=0.5)
    """The share of different questions that may be taken for the same. The semantic index keeps it, at 95 % confidence.
    A lower one gives fewer hits."""
    shadow_share: float = Field(0.01, ge=0, le=1)
    """The share of semantic hits whose answer is generated all the same, sent, and compared with the stored one."""
    near_miss_share: float = Field(0.1, ge=0, le=1)
    """The share of misses with a candidate that scored too low whose new answer is compared with that of the candidate.
    It costs a read of the store. Without it the threshold is never lowered."""
    lease_s: float = Field(3.0, ge=0.2, le=60)
    """Seconds after which identical requests stop waiting for the one that generates their answer, if its router no
    longer renews its lease."""
    max_wait_s: float = Field(60.0, gt=0, le=600)
    """The longest that a request waits for an identical one. Then it generates its own answer."""
    tenants: dict[str, TenantCacheConfig] = Field(default_factory=dict)
    """The settings that single tenants have instead, by name."""

    def terms(self, tenant: str) -> CacheTerms:
        """Returns the settings that apply to ``tenant``."""
        own = self.tenants.get(tenant)
        if own is None:
            return self._common
        changed = {name: value for name, value in own.model_dump().items() if value is not None}
        return replace(self._common, **changed)

    @cached_property
    def _common(self) -> CacheTerms:
        return CacheTerms(self.enabled, self.semantic, self.sampled, self.ttl_s, self.max_entries, self.max_bytes)


class RetrievalConfig(Settings):
    """Documents in requests, and named collections of documents."""

    chunk_tokens: int = Field(256, ge=32, le=1024)
    """Tokens of a chunk, by estimate (3 bytes each). The embedded model reads 256 of its own, which are longer."""
    overlap_tokens: int = Field(48, ge=0, le=512)
    """Tokens at the end of a chunk that the next one repeats, in whole sentences."""
    top_k: int = Field(8, ge=1, le=64)
    """The most chunks in a context, for requests that do not say."""
    budget_tokens: int = Field(512, ge=64, le=131_072)
    """The most tokens of a context, by estimate, for requests that do not say. Half of the embedded tiers' context."""
    diversity: float = Field(0.8, ge=0, le=1)
    """Between relevance alone (1) and unlikeness to what was chosen before (0): the trade-off of maximal marginal
    relevance."""
    max_embedded_chunks: int = Field(16, ge=0, le=1024)
    """The most chunks of a request's own documents that are embedded while it waits, those that BM25 finds best. Each
    takes about 60 ms of a core. 0: their search is by BM25 alone."""
    embed_timeout_s: float = Field(2.0, gt=0, le=60)
    """Seconds that a request waits for vectors. Then it is searched by BM25 alone, and its answer says so."""
    max_collections: int = Field(64, ge=0)
    """The most collections of a tenant."""
    max_documents: int = Field(10_000, ge=1)
    """The most documents of a collection."""
    max_chunks: int = Field(50_000, ge=1)
    """The most chunks of a collection. A router's memory has about 4 KB for each."""
    max_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    """The most bytes of a tenant's documents, in Redis."""
    max_indexed_chunks: int = Field(200_000, ge=1)
    """The most chunks in a router's memory, beyond the collection that is searched. Other collections are read from
    Redis again when they are searched."""
    index_idle_s: float = Field(600.0, gt=0)
    """Seconds after which a collection that is not searched leaves a router's memory."""

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.overlap_tokens >= self.chunk_tokens:
            raise ValueError("overlap_tokens must be smaller than chunk_tokens")
        return self


class FailoverConfig(Settings):
    """Failover: how the requests of a replica that dies, hangs or is stopped are continued on another replica."""

    max_attempts: int = Field(3, ge=1)
    """Attempts at a request whose replica was lost, the first one included. Refusals and planned moves do not count."""
    max_lost_replicas: int = Field(2, ge=1)
    """Replicas lost while they ran a request that had got nothing from them, after which it is given up. The limit
    keeps a request that kills replicas from being tried on all of them. One that had got something from its replica is
    not what killed it, and goes on."""
    wait_s: float = Field(60.0, ge=0)
    """Seconds that an answer that has begun waits for a replica to continue it. Others wait ``placement.wait_s``."""
    on_failure: Literal["error", "partial"] = "error"
    """What a request gets whose whole answer fails after it has begun, unless it says ``on_failure``: the error, or the
    part that was generated. Streams end in the error after what was sent."""
    other_version: Literal["continue", "end"] = "continue"
    """What happens to an answer that has begun if only replicas with another version of the model, or with other engine
    settings, are left. ``continue``: one of them continues it, and the usage says so. ``end``: it ends in an error."""


class ClassAdmission(Settings):
    """The limits on the waiting requests of a scheduling class."""

    ttft_s: float | None = Field(None, gt=0, le=86_400)
    """The class's objective for the time to the first token, in seconds. A request that cannot meet it, because of the
    work before it, is refused at once. None: the class has no objective, and waits."""
    max_requests: int = Field(512, ge=1)
    """The most admitted requests, for each ready replica of the tier, that wait for their first token in one router.
    Those of all classes together should not exceed ``engine.max_waiting``, the queue of a replica."""
    max_tokens: int = Field(2_097_152, ge=1)
    """The most tokens that these may take together: their prompts, and twice what they are expected to generate."""


class TierAdmission(Settings):
    """The admission of a tier, by scheduling class. A class that is None is as in ``router.admission``."""

    interactive: ClassAdmission | None = None
    standard: ClassAdmission | None = None
    batch: ClassAdmission | None = None


class AdmissionConfig(Settings):
    """Admission: which requests a tier takes when more arrive than it can serve. The others are refused at once."""

    enabled: bool = True
    """Whether requests are refused before a replica gets them. Off: a replica refuses when its queue is full."""
    interactive: ClassAdmission = ClassAdmission(ttft_s=5.0, max_requests=256)
    """Requests with ``service_tier: priority`` or a negative ``priority``: a person waits for the first word."""
    standard: ClassAdmission = ClassAdmission(ttft_s=30.0)
    """All other requests. Clients wait for at least the objective: OpenAI's libraries give up after ten minutes."""
    batch: ClassAdmission = ClassAdmission(max_requests=256)
    """Requests with ``service_tier: flex`` or a positive ``priority``, which fill what the others leave."""
    tiers: dict[str, TierAdmission] = Field(default_factory=dict)
    """The settings that single tiers have instead, by name."""
    floor: float = Field(0.1, gt=0, le=1)
    """The share of its queue that the class batch keeps while the others are at their objectives. It keeps all of it
    while they wait for nothing; standard is in the middle. Above 0, so that no class starves."""
    spill: Spill = "none"
    """Where requests may go that their tier would refuse. None by default: another tier has other answers and other
    prices, so a tenant has to want it (``router.tenants``)."""
    max_retry_s: float = Field(60.0, ge=1, le=120)
    """The longest wait that a refusal asks for, in seconds. OpenAI's libraries obey up to 120."""
    max_cache_reads: int = Field(16, ge=0)
    """The most requests at a time that would be refused, and look for their answer in the answer cache before they are.
    Further ones are refused without looking, so that refusals stay quick."""

    def terms(self, tier: str, priority: Priority) -> ClassAdmission:
        """Returns the settings that apply to a scheduling class on a tier."""
        name = priority.name.lower()
        own: ClassAdmission | None = getattr(self.tiers.get(tier), name, None)
        common: ClassAdmission = getattr(self, name)
        return common if own is None else own


class ResumeConfig(Settings):
    """Streams that a client can resume after it has lost its connection: those of requests with ``detach: true``."""

    enabled: bool = True
    """Whether streams can be resumed. Off: ``detach`` has no effect."""
    window_s: float = Field(30.0, gt=0, le=3600)
    """Seconds after its end for which the events of a stream are kept. A request without a reader is aborted after as
    many seconds."""
    max_streams: int = Field(256, ge=1)
    """The most streams of a tenant that are kept. The one whose time ends first makes room."""
    max_bytes: int = Field(16 * 1024 * 1024, ge=65_536)
    """The most bytes of a tenant's events together, in Redis. A token takes about 250 bytes as an event."""


class IdempotencyConfig(Settings):
    """Requests with the header Idempotency-Key, whose whole answers are given again to a retry."""

    enabled: bool = True
    """Whether the header has an effect."""
    window_s: float = Field(86_400.0, ge=60, le=7 * 86_400)
    """Seconds for which an answer is kept for retries."""
    lease_s: float = Field(5.0, ge=0.2, le=60)
    """Seconds after which the key of a router that has died is free again."""
    max_keys: int = Field(10_000, ge=1)
    """The most keys of a tenant. The one whose time ends first makes room."""
    max_bytes: int = Field(32 * 1024 * 1024, ge=65_536)
    """The most bytes of a tenant's stored answers together, in Redis."""
    max_answer_bytes: int = Field(256 * 1024, ge=1024)
    """The largest answer that is stored. A retry of a larger one is run again."""


class RouterConfig(Settings):
    """The settings of the router."""

    keys: tuple[KeyConfig, ...] = Field(min_length=1)
    """The API keys that are accepted, beside those created through /admin/v1/keys."""
    access: AccessConfig = AccessConfig()
    """How keys and tokens are checked."""
    prices: PricesConfig = PricesConfig()
    """What tokens cost."""
    tenants: dict[str, TenantConfig] = Field(default_factory=dict)
    """Settings of tenants, by name. A tenant without any has no limits but those of its keys."""
    limits: LimitPolicy = LimitPolicy()
    """How limits are kept."""
    review: ReviewConfig = ReviewConfig()
    """How people review texts, and how the audit log is kept."""
    prompts: PromptsConfig = PromptsConfig()
    """Prompt templates, and what happens to conversations that are too long."""
    cache: AnswerCacheConfig = AnswerCacheConfig()
    """The answer cache."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """How passages are found in documents and collections."""
    auto: AutoConfig | None = AutoConfig()
    """How ``model: auto`` chooses a tier. None: there is no model ``auto``."""
    aliases: dict[Annotated[str, Field(pattern=r"^[!-~]{1,128}$")], str] = Field(default_factory=dict)
    """Further names of tiers, or of ``auto``, for clients whose model name cannot be changed."""
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    """How /v1/embeddings names its model."""
    admission: AdmissionConfig = AdmissionConfig()
    """Which requests are taken when more arrive than can be served."""
    failover: FailoverConfig = FailoverConfig()
    """What happens to the requests of a replica that is lost."""
    resume: ResumeConfig = ResumeConfig()
    """Streams that a client can resume."""
    idempotency: IdempotencyConfig = IdempotencyConfig()
    """Requests with an idempotency key."""
    profiles: dict[str, ProfileConfig] = PROFILES
    """The sampling profiles, by the name that requests give as ``profile``."""
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """The largest body of a request, in bytes. A larger one gets a 413 before it is read completely."""
    body_timeout_s: float = Field(30.0, gt=0)
    """Seconds that the body of a request may take to arrive. A slower one gets a 408, so that clients that send a byte
    now and then do not occupy ``max_concurrent_requests``."""
    max_prompts: int = Field(64, ge=1)
    """The most prompts of one /v1/completions request. Each becomes an engine request of its own."""
    request_timeout_s: float = Field(600.0, gt=0)
    """Seconds that a request may take in all, its stream included. It should be below the time-outs of proxies in front
    of the router, since this one ends with a clear error."""
    max_concurrent_requests: int = Field(4096, ge=1)
    """The most concurrent requests per router replica. Further ones get a 429. It must be below
    ``ingress.max_ongoing_requests``, beyond which Serve refuses with an error that is not in OpenAI's format."""
