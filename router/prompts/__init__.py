"""Prompts: stored templates, the assembly of a conversation, and what is done with one that is too long."""
