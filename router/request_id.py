"""Request ids: the client's, if it is fit to be echoed and logged, else a new one."""

from __future__ import annotations

import re
import uuid

SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id(offered: str | None) -> str:
    """The id to answer with: ``offered`` when it is made of 1 to 128 harmless characters."""
    return offered if offered is not None and SAFE_ID.fullmatch(offered) else f"req_{uuid.uuid4().hex}"
