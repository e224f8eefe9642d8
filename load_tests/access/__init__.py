"""Whether limits, ledger and outages are as the service promises: ``python -m load_tests.access.limits --help``, and
``ledger``, ``outage`` and ``latency`` likewise."""
