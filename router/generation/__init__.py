"""Generation: sends a request to replicas, tries again after failures, and turns the engine's deltas into answer
events."""
