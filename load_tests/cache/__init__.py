"""How often the semantic cache takes two questions for the same: ``python -m load_tests.cache``."""
