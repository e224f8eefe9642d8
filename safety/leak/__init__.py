"""Detects answers that repeat the system prompt: by a canary token, and by runs of the prompt's words."""
