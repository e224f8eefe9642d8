"""Requests that people wrote for the routing: wordings with places to fill, in two halves."""
