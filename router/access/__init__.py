"""Access: the principal of a request by its API key or JSON Web Token, and what the principal may use."""
