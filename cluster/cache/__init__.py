"""The deployment ``SemanticCache``: stored questions by their meaning, and the routers' way to it."""
