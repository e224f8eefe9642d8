"""What embeddings cost, and how near they are to torch's."""
