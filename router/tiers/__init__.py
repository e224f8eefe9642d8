"""The choice of a request's tier, by name, by forecast or by a score of the prompt."""
