"""Secrets: API keys, tokens, passwords and private keys in texts and streams."""
