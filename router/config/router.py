"""``RouterConfig``: all settings of the router. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router.config.access import AccessConfig
from router.config.admission import AdmissionConfig
from router.config.answer_cache import AnswerCacheConfig
from router.config.auto import AutoConfig
from router.config.cors import CorsConfig
from router.config.embeddings import EmbeddingsConfig
from router.config.failover import FailoverConfig
from router.config.idempotency import IdempotencyConfig
from router.config.keys import KeyConfig
from router.config.limits import LimitPolicy
from router.config.prices import PricesConfig
from router.config.profiles import PROFILES, ProfileConfig
from router.config.prompts import PromptsConfig
from router.config.resume import ResumeConfig
from router.config.retrieval import RetrievalConfig
from router.config.review import ReviewConfig
from router.config.settings import Settings
from router.config.tenants import TenantConfig


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
    cors: CorsConfig = CorsConfig()
    """Web pages that may call the API from a browser."""
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
    stream_keep_alive_s: float | None = Field(15.0, gt=0)
    """Seconds of silence after which an open stream gets a comment, which clients skip: proxies close connections that
    are silent for longer, many after 60 s. Before its first event a stream gets none, so that an error there has its
    own status. None: no comments."""
    max_concurrent_requests: int = Field(4096, ge=1)
    """The most concurrent requests per router replica. Further ones get a 429. The last eighth is kept for tenants that
    have fewer than others, so that a single tenant has seven eighths: set a seventh more where that is too few. It must
    be below ``ingress.max_ongoing_requests``, beyond which Serve refuses with an error that is not in OpenAI's
    format."""
