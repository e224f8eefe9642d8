"""Admission: which requests a tier takes when more arrive than it can serve, and which are refused at once."""
