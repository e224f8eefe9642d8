"""The shared state in Redis: API keys, limits, the ledger, stored answers, prompts, collections, streams and safety."""
