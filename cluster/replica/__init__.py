"""The replicas of the tiers: actors that run the engines."""
