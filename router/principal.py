"""``Principal``: the owner of a request, and the owner's permissions, independent of how the client authenticated."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.config.keys import Role
from router.config.limits import LimitsConfig
from router.config.tenants import Spill


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated owner of a request.

    ``tenant`` is billed and owns the data; ``team``, ``feature`` and ``user`` divide its usage and may be empty.
    ``key_id`` identifies the key without revealing it; for a JWT it is ``jwt:`` and the subject, or a digest.
    ``tiers``, ``models``, ``tools`` and ``endpoints`` are those that it may use; None: all. ``chooses_feature``: a
    request may name its feature itself. ``spill`` is where its requests may go that their tier would refuse; None: as
    its tenant's settings say. ``narrows_spill``: where those say nothing, ``spill`` only narrows
    ``router.admission.spill``, as that of a token does.
    """

    tenant: str
    team: str
    key_id: str
    tiers: frozenset[str] | None = None
    feature: str = ""
    user: str = ""
    role: Role = Role.USER
    models: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    chooses_feature: bool = False
    spill: Spill | None = None
    narrows_spill: bool = False
    limits: LimitsConfig = field(default_factory=LimitsConfig)  # of the key; those of the tenant are in the config
