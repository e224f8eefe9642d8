"""The shared state in Redis: API keys, limits and the ledger."""
