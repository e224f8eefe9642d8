"""The deployment ``Embedder``, and the routers' way to it."""
