"""Recognisers by pattern, and the scanner that runs them over a text that arrives in pieces."""
