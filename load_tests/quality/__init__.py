"""Quality: a held-out set put to the tiers, scored by exact match (``python -m load_tests.quality --help``)."""
