"""Human oversight: the queue of texts that people decide on, what they have approved, and the audit log."""
