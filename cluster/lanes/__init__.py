"""Lanes: from each replica to each router one long-lived stream, which carries the deltas of all their requests."""
