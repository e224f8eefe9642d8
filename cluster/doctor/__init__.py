"""``manta doctor``: what is wrong with this machine, a cluster, or what a service depends on.

``facts`` are gathered by files that do I/O, each within a deadline, and judged by pure checks.
"""
