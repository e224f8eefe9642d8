"""Load: a generator that checks every answer, and the benches that use it."""
