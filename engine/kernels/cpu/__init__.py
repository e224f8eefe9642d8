"""Compiled kernels for CPUs: a whole decoder step in one call, on packed weights and pages read in place."""
