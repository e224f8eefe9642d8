"""Prompts: stored templates, the assembly of a conversation, and the policies for one that is too long."""
