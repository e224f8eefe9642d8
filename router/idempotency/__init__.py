"""Idempotency: a request with the header Idempotency-Key is run once, however often it is sent."""
