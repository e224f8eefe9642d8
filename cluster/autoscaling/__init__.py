"""How many replicas each tier has: pure decisions from snapshots, with the reasons."""
