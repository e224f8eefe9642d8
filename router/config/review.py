"""How people review texts, and how the audit log is kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from router.config.settings import Settings

MIN_SECRET_BYTES = 32
"""Of the secret from which keys are derived."""


class ReviewConfig(Settings):
    """The settings of the review queue and of the audit log. The tenants' policies decide which texts go to review."""

    secret_file: Path | None = None
    """A file with at least 32 characters, such as a mounted secret, from which the keys of fingerprints and of stored
    texts are made; the same for all routers. None: a random one, which the shared state keeps beside the texts. With
    another secret, former exceptions match nothing and former texts cannot be read."""
    lease_s: float = Field(900.0, ge=1, le=86_400)
    """Seconds for which a reviewer holds an item. Then it goes back to the queue."""
    max_open: int = Field(10_000, ge=1, le=100_000)
    """The most open items of a tenant in the queue. Further texts are not queued, and their requests are refused."""
    kept_days: int = Field(90, ge=1, le=3650)
    """Days that an item is kept after its decision, for the next training."""
    audit_days: int = Field(90, ge=1, le=3650)
    """Days that the records of the audit log are kept. The heads of its chain are always kept."""

    def read_secret(self) -> bytes | None:
        """Returns the secret in ``secret_file``; None if that is not set.

        Raises ValueError, without the secret, for a file that cannot be read or is too short.
        """
        if self.secret_file is None:
            return None
        try:
            secret = self.secret_file.read_bytes().strip()
        except OSError as error:
            raise ValueError(f"router.review.secret_file: {self.secret_file}: {error.strerror}") from error
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"router.review.secret_file: {self.secret_file} has fewer than 32 characters")
        return secret
