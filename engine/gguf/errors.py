"""The error for a damaged GGUF file."""

from __future__ import annotations


class GGUFError(ValueError):
    """The file is damaged, or of a kind that cannot be read. The message names the tensor or key."""
