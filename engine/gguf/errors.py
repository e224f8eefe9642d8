"""What is wrong with a GGUF file."""

from __future__ import annotations


class GGUFError(ValueError):
    """A file that is damaged, or of a kind that cannot be read. The message names the tensor or key."""
