"""The signals. Each is a function from ``SignalInputs`` to the number of replicas that a tier needs, or to None.
Pure."""
