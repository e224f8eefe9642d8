"""The id of a request, which responses and logs show. A client may choose it by the header x-request-id."""

from __future__ import annotations

import re
import uuid

SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id(offered: str | None) -> str:
    """Returns ``offered``, the id in the client's header, if it matches SAFE_ID. Otherwise returns a new id."""
    return offered if offered is not None and SAFE_ID.fullmatch(offered) else f"req_{uuid.uuid4().hex}"
