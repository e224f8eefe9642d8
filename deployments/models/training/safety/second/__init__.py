"""Trains the second opinion of the safety classifier: the layers in the middle of SmolLM2, with a head."""
