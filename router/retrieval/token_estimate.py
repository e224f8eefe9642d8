"""The number of tokens of a text, estimated without a tokenizer: the router serves tiers with different ones. Pure."""

from __future__ import annotations

BYTES_PER_TOKEN = 3
"""Of UTF-8. Tokenizers of English need fewer tokens, so that a budget is kept."""


def estimated_tokens(text: str) -> int:
    """Returns an estimate of the tokens of ``text`` that few tokenizers exceed."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)
