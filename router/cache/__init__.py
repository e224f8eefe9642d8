"""The answer cache: stored answers to equal requests and to questions of the same meaning; identical requests share one
generation."""
