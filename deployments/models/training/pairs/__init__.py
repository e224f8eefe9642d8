"""Training of the pair model: MiniLM that reads two questions and tells whether they ask for the same answer."""
