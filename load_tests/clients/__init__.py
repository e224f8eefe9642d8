"""Clients that are slow or never finish what they begin, beside others: what they cost, and whom they harm."""
