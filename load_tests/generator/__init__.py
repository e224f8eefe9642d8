"""The load generator: ``python -m load_tests.generator --help``."""
