"""Weights in fewer bits than they were trained in."""
