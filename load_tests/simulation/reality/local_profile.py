"""``LOCAL``: the profile of the stub replica. It is apart from the stub, which imports Ray."""

from load_tests.simulation.profile import ReplicaProfile

LOCAL = ReplicaProfile("stub", "batching_stub.py", 1, 4_000, 0.02, 0.0005, 0.0, 1024, 16_000, 16)
"""A replica that answers some three requests/s of 500 and 50 tokens: few enough for an HTTP service on two cores."""
