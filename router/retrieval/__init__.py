"""Retrieval: documents are cut into chunks, searched, and packed into a request's context; answers cite them."""
