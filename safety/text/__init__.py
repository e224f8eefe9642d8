"""Text as a reader sees it: letters without case, accents or disguise, each with its place in the original."""
