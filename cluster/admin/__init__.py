"""The command ``manta``: keys, usage, limits and status of a service, over its admin API."""
