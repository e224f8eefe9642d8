"""Requests for embeddings: names, checks, and vectors of fewer dimensions."""
