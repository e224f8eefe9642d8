"""Settings of single tenants."""

from __future__ import annotations

from typing import Literal

from router.config.limits import LimitsConfig
from router.config.settings import Settings

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
    log_texts: bool = False
    """Whether prompts and answers of the tenant are logged, redacted, in the files of ``telemetry.texts``. Off, since
    the tenant has to ask for it; a request cannot."""
