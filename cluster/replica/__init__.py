"""The model replicas: the actors around the engines."""
