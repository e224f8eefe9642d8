"""The signals: each says from the evidence how many replicas a tier needs, or nothing. Pure."""
