"""``with_admin_key``: gives a local service whose config has no admin key a first one."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from cluster.local.serve_config_loader import BUILDER


def with_admin_key(config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Returns ``config`` and None if each application of Manta has a key with the role ``admin``. Otherwise adds the
    digest of a new admin key to the applications without one, and returns the config and the key. The service itself
    never gets the key."""
    if not any(_lacks_admin(application) for application in config["applications"]):
        return dict(config), None
    key = f"sk-manta-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    row = {"key": f"sha256:{digest}", "tenant": "admin", "team": "admin", "role": "admin"}

    def completed(application: dict[str, Any]) -> dict[str, Any]:
        if not _lacks_admin(application):
            return application
        arguments = application["args"]
        router = arguments["router"]
        return {**application, "args": {**arguments, "router": {**router, "keys": [*router["keys"], row]}}}

    return {**config, "applications": [completed(application) for application in config["applications"]]}, key


def _lacks_admin(application: Mapping[str, Any]) -> bool:
    """Returns whether it is an application of Manta with keys, none of which has the role ``admin``."""
    keys = ((application.get("args") or {}).get("router") or {}).get("keys") or ()
    return application.get("import_path") == BUILDER and bool(keys) and all(key.get("role") != "admin" for key in keys)
