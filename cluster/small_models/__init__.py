"""The deployment ``SmallModels``: safety classifier, embedder and semantic cache in one process."""
