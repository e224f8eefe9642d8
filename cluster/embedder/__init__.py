"""The deployment ``Embedder``, and the routers' client of it."""
