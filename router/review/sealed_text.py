"""Texts of the review queue, encrypted with AES-256-GCM (NIST SP 800-38D) before they are stored."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


def seal(key: bytes, tenant: str, item_id: str, text: str) -> bytes:
    """Returns ``text`` encrypted with ``key``, which has 32 bytes, so that it can be decrypted for this item only."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text.encode("utf-8", "surrogatepass"), _item(tenant, item_id))


def unseal(key: bytes, tenant: str, item_id: str, sealed: bytes) -> str | None:
    """Returns the text in ``sealed``; None if it was encrypted with another key or for another item, or changed."""
    try:
        text = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _item(tenant, item_id))
    except (InvalidTag, ValueError):
        return None
    return text.decode("utf-8", "surrogatepass")


def _item(tenant: str, item_id: str) -> bytes:
    return f"{tenant}\0{item_id}".encode()
