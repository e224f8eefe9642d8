"""JSON Web Tokens, and the key set that they are signed by."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

SIGNING = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"})


class Published:
    """A key set that a test changes."""

    def __init__(self, *keys: RSAKey | ECKey) -> None:
        self.keys = keys
        self.reads = 0
        self.read_again = asyncio.Event()

    async def read(self) -> bytes:
        self.reads += 1
        if self.reads > 1:
            self.read_again.set()
        return json.dumps(KeySet(list(self.keys)).as_dict(private=False)).encode()


def claims(now: float, **changes: Any) -> dict[str, Any]:
    found = {"iss": "https://issuer", "aud": ["manta", "x"], "exp": int(now) + 600, "sub": "ada", "tenant": "acme"}
    return {name: value for name, value in (found | changes).items() if value is not None}


def token(now: float, key: Any = SIGNING, header: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(
        header or {"alg": "RS256", "kid": "k1"}, claims(now, **changes), key, algorithms=["RS256", "ES256"]
    )
