"""The pair scorer, the second stage of the semantic cache: a cross-encoder that reads two questions together."""
