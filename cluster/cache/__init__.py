"""The deployment ``SemanticCache``, which finds stored questions by their meaning, and the routers' client of it."""
