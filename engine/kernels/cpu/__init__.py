"""Compiled kernels for CPUs: a whole decoder step in one call, on packed weights, with KV pages read in place."""
