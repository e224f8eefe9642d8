"""Optional tiers: those whose model is missing, and the settings without them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from cluster.config import MantaConfig
from engine.model.location import ModelNotFoundError, locate
from router.config.keys import KeyConfig
from router.config.router import RouterConfig

logger = logging.getLogger(__name__)
T = TypeVar("T")


def missing_tiers(config: MantaConfig) -> list[str]:
    """Logs a warning for each optional tier whose model is not on this machine. Returns the names of these tiers, in
    the order of ``config.tiers``."""
    missing = []
    for tier in config.tiers:
        if not tier.optional:
            continue
        try:
            locate(tier.engine.model)
        except ModelNotFoundError as error:
            logger.warning("without the optional tier %s: %s", tier.name, error)
            missing.append(tier.name)
    return missing


def without_tiers(config: MantaConfig, missing: Collection[str]) -> MantaConfig:
    """Returns a copy of ``config`` without the tiers ``missing`` and without the settings that refer to them: aliases,
    thresholds, rights of keys.

    A key whose tiers are all missing is removed too. The first tier that is left has no threshold. Raises ValueError if
    no tier or no key is left.
    """
    if not missing:
        return config
    first = next((tier.name for tier in config.tiers if tier.name not in missing), None)
    return MantaConfig(
        tiers=tuple(tier for tier in config.tiers if tier.name not in missing),
        router=_router_without(config.router, missing, first),
        ingress=config.ingress,
        placement=config.placement,
        state=config.state,
        safety=config.safety,
        embedder=config.embedder,
        cache=config.cache,
        autoscaling=None if config.autoscaling is None else config.autoscaling.without(missing),
        small_models=config.small_models,
        telemetry=config.telemetry,
    )


def _router_without(router: RouterConfig, missing: Collection[str], first: str | None) -> RouterConfig:
    """Returns a copy of ``router`` without the settings that refer to tiers of ``missing``. ``first`` is the first tier
    that is left. Raises ValueError if no key is left."""
    auto = router.auto
    if auto is not None and auto.thresholds is not None:
        left = {name: score for name, score in auto.thresholds.items() if name not in missing and name != first}
        auto = auto.model_copy(update={"thresholds": left})
    return router.model_copy(
        update={
            "auto": auto,
            "aliases": {alias: target for alias, target in router.aliases.items() if target not in missing},
            "keys": _keys_without(router.keys, missing),
            "prices": router.prices.model_copy(update={"tiers": _present(router.prices.tiers, missing)}),
            "prompts": router.prompts.model_copy(update={"tiers": _present(router.prompts.tiers, missing)}),
            "admission": router.admission.model_copy(update={"tiers": _present(router.admission.tiers, missing)}),
        }
    )


def _keys_without(keys: Sequence[KeyConfig], missing: Collection[str]) -> tuple[KeyConfig, ...]:
    """Returns ``keys`` without rights to tiers of ``missing``, and without those that have no others. Raises ValueError
    if none is left."""
    changed = [
        key if key.tiers is None else key.model_copy(update={"tiers": _others(key.tiers, missing)}) for key in keys
    ]
    kept = tuple(key for key in changed if key.tiers is None or key.tiers)
    if not kept:
        raise ValueError(
            f"router.keys: no key may use another tier than {', '.join(missing)}, whose models are missing"
        )
    return kept


def _present(settings: Mapping[str, T], missing: Collection[str]) -> dict[str, T]:
    return {name: each for name, each in settings.items() if name not in missing}


def _others(names: Sequence[str], missing: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in missing)
