"""Which requests are taken when more arrive than can be served."""

from __future__ import annotations

from pydantic import Field

from engine.api import Priority
from router.config.settings import Settings
from router.config.tenants import Spill


class ClassAdmission(Settings):
    """The limits on the waiting requests of a scheduling class."""

    ttft_s: float | None = Field(None, gt=0, le=86_400)
    """The class's objective for the time to the first token, in seconds. A request that cannot meet it, because of the
    work before it, is refused at once. None: the class has no objective, and waits."""
    ttft_s_per_1k_tokens: float = Field(0.0, ge=0, le=3_600)
    """The seconds by which that objective is longer for each 1,000 tokens of the prompt, cached ones included. 0: it is
    the same for all lengths, so that where most prompts are short, the long ones are refused first. What classes leave
    to lower ones is decided by ``ttft_s`` alone."""
    max_requests: int = Field(512, ge=1)
    """The most admitted requests, for each ready replica of the tier, that wait for their first token in one router.
    Those of all classes together should not exceed ``engine.max_waiting``, the queue of a replica."""
    max_tokens: int = Field(2_097_152, ge=1)
    """The most tokens that these may take together: what is not cached of their prompts, and twice what they are
    expected to generate."""

    def objective_s(self, prompt_tokens: int) -> float | None:
        """Returns the objective for a prompt of ``prompt_tokens`` tokens, in seconds; None: there is none."""
        return None if self.ttft_s is None else self.ttft_s + self.ttft_s_per_1k_tokens * prompt_tokens / 1000


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
