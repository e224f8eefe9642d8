"""Quantised weights: weights in fewer bits than they were trained in."""
