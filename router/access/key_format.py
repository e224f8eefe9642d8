"""The format of the API keys that the service creates, and the hash that it keeps of one.

::

    sk-manta-k7x2m9qd4rfw-3JmV…      prefix, key id (12 characters), secret (43 characters)

The key id is public: it names the key in lists, logs and the ledger, and finds its record. The secret has 256 bits, so
a guess is hopeless and a fast hash is enough; a slow one (scrypt, Argon2) protects secrets that people choose. The hash
is HMAC-SHA-256 (RFC 2104) with a random salt of its own for each key, so that equal hashes never show.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from typing import NamedTuple

PREFIX = "sk-manta-"
ID_ALPHABET = string.ascii_lowercase + string.digits
SECRET_ALPHABET = string.ascii_letters + string.digits
ID_LENGTH = 12  # characters: 62 bits, so that two keys never get one id
SECRET_LENGTH = 43  # characters: 256 bits
SALT_BYTES = 16
KEY = re.compile(rf"{PREFIX}([a-z0-9]{{{ID_LENGTH}}})-([A-Za-z0-9]{{{SECRET_LENGTH}}})", re.ASCII)


class SecretHash(NamedTuple):
    """The salted hash of a secret, which is all that the service stores of it. ``salt`` and ``digest`` are lower-case
    hexadecimal."""

    salt: str
    digest: str

    @classmethod
    def of(cls, secret: str, salt: bytes | None = None) -> SecretHash:
        """Returns the hash of ``secret``, by default with a new random salt."""
        salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
        return cls(salt.hex(), hmac.new(salt, secret.encode(), hashlib.sha256).hexdigest())

    def matches(self, secret: str) -> bool:
        """Returns whether this is the hash of ``secret``. The comparison takes constant time."""
        return hmac.compare_digest(self.digest, SecretHash.of(secret, bytes.fromhex(self.salt)).digest)


class ApiKey(NamedTuple):
    """An API key in plain text, split into key id and secret. Both are ASCII letters and digits."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The key as clients send it."""
        return f"{PREFIX}{self.id}-{self.secret}"

    @classmethod
    def parse(cls, text: str) -> ApiKey | None:
        """Returns the parts of a key; None for text that is no key of this format."""
        found = KEY.fullmatch(text)
        return None if found is None else cls(found[1], found[2])


def new_id() -> str:
    """Returns a new random key id."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


def new_secret() -> str:
    """Returns a new random secret."""
    return "".join(secrets.choice(SECRET_ALPHABET) for _ in range(SECRET_LENGTH))
