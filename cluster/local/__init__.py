"""The launcher of a whole service on one machine (``make serve``)."""
