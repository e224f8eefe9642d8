"""The feature of a request: a label by which a tenant's usage is reported. The API key has it, or the request names it.
Pure."""

from __future__ import annotations

import re

from router.errors import InvalidRequestError
from router.principal import Principal

FEATURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}", re.ASCII)


def feature_of(principal: Principal, named: str) -> str:
    """Returns ``named``, the feature that the request names, if the key of ``principal`` permits that; else the key's
    own.

    Raises InvalidRequestError unless the name has 1 to 64 letters, digits and ``._:/@-``, and begins with a letter or
    digit.
    """
    if not FEATURE.fullmatch(named):
        message = (
            "The header x-manta-feature must have 1 to 64 letters, digits and ._:/@-, and begin with one of the first."
        )
        raise InvalidRequestError(message, "invalid_feature", "x-manta-feature")
    return named if principal.chooses_feature else principal.feature
