"""A simulator of a scaled tier: replays request traces against models of replicas, under autoscaling policies."""
