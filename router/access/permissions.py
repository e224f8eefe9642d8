"""Authorisation: the tiers, models, endpoints and tools that a principal may use. Pure. A refusal names the permission
that is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from router.config.keys import Role
from router.errors import PermissionDeniedError
from router.principal import Principal


def allowed_tiers(principal: Principal, tiers: Sequence[str]) -> list[str]:
    """Returns those of ``tiers`` that ``principal`` may use, in the same order."""
    return [tier for tier in tiers if principal.tiers is None or tier in principal.tiers]


def allowed_models(principal: Principal, names: Mapping[str, str]) -> dict[str, str]:
    """Returns the entries of ``names``, which maps model names to tiers, that ``principal`` may ask for."""
    return {name: tier for name, tier in names.items() if principal.models is None or name in principal.models}


def check_admin(principal: Principal) -> None:
    """Raises PermissionDeniedError unless ``principal`` is an administrator."""
    if principal.role is not Role.ADMIN:
        raise PermissionDeniedError("This key has not the role 'admin', which /admin/v1 needs.", "admin_required")


def check_endpoint(principal: Principal, endpoint: str, *, inference: bool = True) -> None:
    """Raises PermissionDeniedError unless ``principal`` may call the path ``endpoint``, such as ``/v1/completions``.
    ``inference``: the endpoint runs a model, which the role ``viewer`` may not do."""
    if inference and principal.role is Role.VIEWER:
        message = f"This key has the role 'viewer', which may not call the endpoint '{endpoint}'."
        raise PermissionDeniedError(message, "endpoint_not_allowed")
    if principal.endpoints is not None and endpoint not in principal.endpoints:
        raise PermissionDeniedError(f"This key may not call the endpoint '{endpoint}'.", "endpoint_not_allowed")


def check_model(principal: Principal, model: str, target: str | None, tiers: Collection[str]) -> None:
    """Raises PermissionDeniedError if ``principal`` may not ask for ``model``, or may not use the tier behind it.

    ``target`` is the tier of ``model``, or ``auto``; None: there is no such model, and the caller refuses it with
    another error. ``tiers`` are the names of all tiers.
    """
    if target is None:
        return
    if target in tiers and principal.tiers is not None and target not in principal.tiers:
        raise PermissionDeniedError(f"This key may not use the tier '{target}'.", "tier_not_allowed", "model")
    if principal.tiers is not None and principal.tiers.isdisjoint(tiers):
        raise PermissionDeniedError("This key may not use any tier of this service.", "tier_not_allowed", "model")
    if principal.models is not None and model not in principal.models:
        raise PermissionDeniedError(f"This key may not use the model '{model}'.", "model_not_allowed", "model")


def check_tools(principal: Principal, tools: Sequence[str]) -> None:
    """Raises PermissionDeniedError for the first of ``tools`` that ``principal`` may not offer to a model."""
    if principal.tools is None:
        return
    for place, tool in enumerate(tools):
        if tool not in principal.tools:
            raise PermissionDeniedError(
                f"This key may not use the tool '{tool}'.", "tool_not_allowed", f"tools[{place}]"
            )
