"""Training of the safety classifier: MiniLM with one head for moderation categories and prompt injection."""
