"""Overload: what is answered in time when more arrives than can be served, with and without admission."""
