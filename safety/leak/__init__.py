"""Whether an answer repeats the system prompt: a canary token, and runs of the prompt's words."""
