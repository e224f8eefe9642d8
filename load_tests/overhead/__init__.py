"""What the cluster costs around an engine that costs nothing: ``python -m load_tests.overhead --help``."""
