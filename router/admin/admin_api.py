"""``AdminApi``: the requests to ``/admin/v1`` and ``/v1/usage``, independent of the transport.

Each file ``*_api.py`` of this package has a section, and names its paths at the top.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from router.access.authenticator import Authenticator
from router.access.permissions import check_admin, check_endpoint
from router.admin.admin_section import AdminCall, AdminSection, Reply
from router.admin.cache_api import FEEDBACK
from router.admin.usage_api import OWN_USAGE
from router.errors import UnavailableError
from router.ports.state_store import StateUnavailableError
from router.principal import Principal


class AdminApi:
    """Answers requests of administrators: authenticates them, and asks the section of the path. All paths under
    ``/admin/v1`` need the role ``admin``."""

    def __init__(self, authenticator: Authenticator, sections: Sequence[AdminSection]) -> None:
        self._authenticator = authenticator
        self._sections = sections

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if no section serves ``path``."""
        return next((found for section in self._sections if (found := section.methods(path)) is not None), None)

    async def handle(self, call: AdminCall) -> Reply:
        """Answers a request whose method and path are among ``methods``.

        Raises AuthenticationError, PermissionDeniedError, InvalidRequestError, NotFoundError, ConflictError, and
        UnavailableError if the shared state cannot be reached.
        """
        principal = await self._authenticator.authenticate(call.credentials)
        _check(principal, call.path)
        section = next(section for section in self._sections if section.methods(call.path) is not None)
        try:
            answer = await section.answer(call, principal)
        except StateUnavailableError:
            message = "The shared state cannot be reached at the moment."
            raise UnavailableError(message, "state_unavailable", retry_after_s=5) from None
        return answer if isinstance(answer, Reply) else Reply(json.dumps(answer))


def _check(principal: Principal, path: str) -> None:
    """Raises PermissionDeniedError unless ``principal`` may use ``path``. Two are for tenants themselves."""
    if path == OWN_USAGE:
        check_endpoint(principal, OWN_USAGE, inference=False)
    elif path == FEEDBACK:
        check_endpoint(principal, FEEDBACK)
    else:
        check_admin(principal)
