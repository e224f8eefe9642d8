"""How near predicted times to the first token are to measured ones, with real engines."""
