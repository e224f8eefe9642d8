"""The ledger: an entry with tokens and cost for each request, and reports of usage."""
