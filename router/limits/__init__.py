"""Limits: requests, tokens and money of keys and tenants, reserved before a request runs and settled after it."""
