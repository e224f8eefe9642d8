"""Normalised text: letters without case, accents or disguise, each with its offset in the original."""
