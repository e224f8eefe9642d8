"""Human oversight: the queue of texts that people decide on, the exceptions for approved texts, and the audit log."""
