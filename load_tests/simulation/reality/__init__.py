"""The simulator against reality: the same trace on a Ray cluster with stub engines, and simulated."""
