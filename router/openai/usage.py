"""OpenAI's usage object."""

from __future__ import annotations

from typing import Any

from engine.api import Usage


def usage_fields(usage: Usage) -> dict[str, Any]:
    """The token counts of a request."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
