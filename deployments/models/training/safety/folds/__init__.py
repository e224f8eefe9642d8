"""Trains the classifier that ships on all sets that judge it. The fold that left a set out judges it."""
