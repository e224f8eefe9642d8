"""Policies that say how many replicas a simulated tier has: Manta's own, peers, and fixed profiles."""
