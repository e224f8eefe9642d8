"""Retrieval: documents are cut into chunks, these are searched and packed into a request's context, and answers cite
them."""
