"""How OpenAI ends a stream."""

from __future__ import annotations

DONE = "[DONE]"
"""The last message of a stream that ended well; one that failed ends with an error instead."""
