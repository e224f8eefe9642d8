"""``PolicyApi``: the requests to ``/admin/v1/safety/policies``, independent of the transport.

::

    GET    /admin/v1/safety/policies            lists all policies
    GET    /admin/v1/safety/policies/{tenant}   shows the policy that counts for a tenant; ``*``: the default
    PUT    /admin/v1/safety/policies/{tenant}   replaces it, as a whole
    DELETE /admin/v1/safety/policies/{tenant}   goes back to that of the config file
"""

from __future__ import annotations

import json
import re
from typing import Any

from router.admin.admin_section import AdminCall
from router.errors import InvalidRequestError, NotFoundError, UnavailableError
from router.principal import Principal
from safety.api import InvalidPolicyError, PolicyAdmin, PolicyDocument, PolicyStoreError

POLICIES = "/admin/v1/safety/policies"
MAX_BODY_BYTES = 4 * 1024 * 1024  # a policy may have long lists of phrases
TENANT = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}")


class PolicyApi:
    """Answers requests of administrators about safety policies. ``admin`` None: the service has no policies."""

    def __init__(self, admin: PolicyAdmin | None) -> None:
        self._admin = admin

    def status(self) -> dict[str, Any]:
        """Returns the names of the tenants whose stored policy this router cannot read."""
        return {"unreadable": [] if self._admin is None else list(self._admin.unreadable())}

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        if path == POLICIES:
            return ("GET",)
        prefix, _, tenant = path.rpartition("/")
        return ("GET", "PUT", "DELETE") if prefix == POLICIES and TENANT.fullmatch(tenant) else None

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any]:
        """Answers a request whose method and path are among ``methods``.

        Raises InvalidRequestError that names the wrong field, NotFoundError if the service has no policies, and
        UnavailableError if the shared store cannot be reached.
        """
        if self._admin is None:
            raise NotFoundError("This service has no policies: set safety.policies.", "safety_not_configured")
        try:
            return await self._answer(self._admin, call)
        except InvalidPolicyError as error:
            message = (
                f"{error.field}: {error.message}." if error.field else f"The policy is not valid: {error.message}."
            )
            raise InvalidRequestError(message, "invalid_value", error.field) from None
        except PolicyStoreError:
            message = "The shared state cannot be reached at the moment."
            raise UnavailableError(message, "state_unavailable", retry_after_s=5) from None

    async def _answer(self, admin: PolicyAdmin, call: AdminCall) -> dict[str, Any]:
        if call.path == POLICIES:
            return {"object": "list", "data": [_shown(each) for each in await admin.policies()]}
        tenant = call.path.rpartition("/")[2]
        if call.method == "PUT":
            return _shown(await admin.set_policy(tenant, await call.read(MAX_BODY_BYTES)))
        if call.method == "DELETE":
            return _shown(await admin.remove_policy(tenant))
        return _shown(await admin.policy(tenant))


def _shown(document: PolicyDocument) -> dict[str, Any]:
    return {
        "object": "safety_policy",
        "tenant": document.tenant,
        "version": document.version,
        "source": "stored" if document.stored else "config",
        "unreadable": document.unreadable,
        "policy": json.loads(document.document),
    }
