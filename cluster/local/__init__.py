"""The launcher of a service on one machine, which is ``make serve``."""
