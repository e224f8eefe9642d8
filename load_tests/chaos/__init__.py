"""Faults under load: whether streams survive them unchanged, and for how long they pause."""
