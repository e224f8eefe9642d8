"""The second stage of the semantic cache: a model that reads two questions side by side, on one thread."""
