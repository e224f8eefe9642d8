"""Lanes: one long-lived stream from each replica to each router, with the deltas of all requests between them."""
